use std::io::Read;
use std::os::fd::OwnedFd;

use super::*;
use devices::legacy::Output;

fn console() -> (SerialOutput, io::PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let sink = Sink::new(OwnedFd::from(writer)).unwrap();
    let output = ConsoleOutput::new(sink, Waker::new().unwrap(), Arc::default());
    (SerialOutput(Arc::new(output)), reader)
}

fn send(output: &mut SerialOutput, text: &[u8]) {
    text.iter().for_each(|&byte| output.write(byte));
}

#[test]
fn whole_lines_are_written_at_once_and_others_by_the_event_loop() {
    let (mut output, mut reader) = console();
    send(&mut output, b"whole\nlogin: ");
    let mut buffer = [0; 64];
    let length = reader.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"whole\n");
    assert!(output.0.announced());
    assert_eq!(output.0.flush(), Flushed::Empty);
    let length = reader.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"login: ");
    assert!(!output.0.announced());
}

#[test]
fn a_reader_that_does_not_read_fills_the_buffer_and_no_more() {
    let (mut output, mut reader) = console();
    let mut sent = 0;
    while output.room() {
        output.write(if sent % 80 == 79 { b'\n' } else { b'.' });
        sent += 1;
        assert!(sent <= 4 << 20, "the buffer has no end");
    }
    assert_eq!(output.0.flush(), Flushed::Stalled);
    let mut read = 0;
    let mut buffer = vec![0; 64 << 10];
    while read < sent {
        read += reader.read(&mut buffer).unwrap();
        output.0.flush();
    }
    assert_eq!(read, sent, "what was taken is delivered");
    assert!(output.room());
}

#[test]
fn a_reader_that_is_gone_does_not_stop_the_guest() {
    let (mut output, reader) = console();
    drop(reader);
    for _ in 0..LIMIT {
        send(&mut output, b"x\n");
        assert!(output.room());
    }
}
