//! WebAssembly's side of `isolation`: one process that holds any number of instances of the guest's counterpart, `job.wat`,
//! compiled once, before the first is wanted.
//!
//! `wasm-job [pooled]` says READY and takes lines on stdin, each of which gets one line back: `start [WORDS]` makes an instance and has
//! it say READY, `ask NUMBER LINE` has it answer, `read NUMBER` has it read the file, `end NUMBER` drops it. Instances are numbered from 0
//! in the order of their starts. With `pooled`, their memory comes from a pool that is mapped before and used again.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};

use wasmtime::{
    Caller, Config, Engine, Extern, Instance, InstanceAllocationStrategy, InstancePre, Linker, Memory,
    Module, PoolingAllocationConfig, Store,
};

const JOB: &str = include_str!("job.wat");
/// How many instances a pool is for.
const POOL: u32 = 100;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What an instance has of its host.
#[derive(Default)]
struct Outside {
    /// What it has said.
    said: Vec<u8>,
    file: Option<File>,
}

/// An instance at work.
struct Running {
    store: Store<Outside>,
    instance: Instance,
    steps: i64,
    file: Option<String>,
}

fn main() -> Result<()> {
    let engine = engine(std::env::args().nth(1).as_deref() == Some("pooled"))?;
    let module = Module::new(&engine, JOB)?;
    let prepared = linker(&engine)?.instantiate_pre(&module)?;
    let mut running: Vec<Option<Running>> = Vec::new();
    say(b"READY")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = if verb == "start" {
            let (instance, answer) = Running::start(&engine, &prepared, rest)?;
            running.push(Some(instance));
            answer
        } else {
            let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let place = running.get_mut(number.parse::<usize>()?).ok_or("there is no such instance")?;
            act(verb, place, rest)?
        };
        say(&answer)?;
    }
    Ok(())
}

fn engine(pooled: bool) -> Result<Engine> {
    let mut config = Config::new();
    if pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(POOL).total_memories(POOL).total_tables(POOL).max_memory_size(1 << 20);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    Ok(Engine::new(&config)?)
}

fn act(verb: &str, place: &mut Option<Running>, rest: &str) -> Result<Vec<u8>> {
    let instance = place.as_mut().ok_or("the instance has ended")?;
    match verb {
        "ask" => instance.answer(rest),
        "read" => instance.read(),
        "end" => {
            *place = None;
            Ok(b"ENDED".to_vec())
        }
        other => Err(format!("{other} is none of start, ask, read, end").into()),
    }
}

impl Running {
    /// Makes an instance, and returns what it says first.
    fn start(engine: &Engine, prepared: &InstancePre<Outside>, words: &str) -> Result<(Self, Vec<u8>)> {
        let value = |key: &str| words.split_whitespace().find_map(|word| word.strip_prefix(key));
        let steps = value("n=").map_or(Ok(0), str::parse)?;
        let mut store = Store::new(engine, Outside::default());
        let instance = prepared.instantiate(&mut store)?;
        instance.get_typed_func::<(), ()>(&mut store, "start")?.call(&mut store, ())?;
        let said = std::mem::take(&mut store.data_mut().said);
        Ok((Self { store, instance, steps, file: value("data=").map(Into::into) }, said))
    }

    fn answer(&mut self, line: &str) -> Result<Vec<u8>> {
        let Self { store, instance, steps, .. } = self;
        let memory = instance.get_memory(&mut *store, "memory").ok_or("no memory")?;
        let place = instance.get_global(&mut *store, "line").ok_or("no place for a line")?;
        let place = place.get(&mut *store).i32().unwrap_or_default();
        memory.write(&mut *store, usize::try_from(place)?, line.as_bytes())?;
        let answer = instance.get_typed_func::<(i32, i64), ()>(&mut *store, "answer")?;
        answer.call(&mut *store, (i32::try_from(line.len())?, *steps))?;
        Ok(std::mem::take(&mut store.data_mut().said))
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let Self { store, instance, file, .. } = self;
        store.data_mut().file = Some(File::open(file.as_deref().ok_or("data= is missing")?)?);
        let bytes = instance.get_typed_func::<(), i64>(&mut *store, "read")?.call(&mut *store, ())?;
        Ok(format!("bytes={bytes}").into_bytes())
    }
}

/// The host's functions. Whatever place an instance names, `Memory::data` and its slices check it.
fn linker(engine: &Engine) -> Result<Linker<Outside>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap("host", "say", |mut caller: Caller<'_, Outside>, at: i32, length: i32| {
        let (bytes, outside) = memory(&mut caller)?.data_and_store_mut(&mut caller);
        outside.said.extend_from_slice(piece(bytes, at, length)?);
        wasmtime::Result::Ok(())
    })?;
    linker.func_wrap("host", "read", |mut caller: Caller<'_, Outside>, at: i32, length: i32| {
        let (bytes, outside) = memory(&mut caller)?.data_and_store_mut(&mut caller);
        let buffer = piece(bytes, at, length)?;
        let count = outside.file.as_mut().map_or(Ok(0), |file| file.read(buffer))?;
        wasmtime::Result::Ok(i32::try_from(count)?)
    })?;
    Ok(linker)
}

fn memory(caller: &mut Caller<'_, Outside>) -> wasmtime::Result<Memory> {
    caller.get_export("memory").and_then(Extern::into_memory).ok_or_else(|| wasmtime::Error::msg("no memory"))
}

fn piece(bytes: &mut [u8], at: i32, length: i32) -> wasmtime::Result<&mut [u8]> {
    let (at, length) = (usize::try_from(at)?, usize::try_from(length)?);
    let piece = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..length));
    piece.ok_or_else(|| wasmtime::Error::msg("outside of the memory"))
}

/// One line in one write, at once.
fn say(line: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&[line, b"\n"].concat())?;
    stdout.flush()
}
