use std::fs;

use super::*;

fn job(mode: Mode) -> Job {
    Job::new(mode, &std::env::temp_dir()).unwrap()
}

fn arguments(subject: &dyn Subject, job: &Job) -> Vec<String> {
    subject.arguments(job).unwrap().into_iter().map(|argument| argument.into_string().unwrap()).collect()
}

#[test]
fn floor_takes_the_command_line_alone() {
    let job = job(Mode::Idle);
    assert_eq!(arguments(&floor::Floor("floor".into()), &job), ["mode=idle"]);
}

#[test]
fn mote_runs_its_default_machine() {
    let job = job(Mode::Ready);
    assert_eq!(arguments(&mote::Mote("mote".into()), &job), ["run", "--cmdline", "mode=ready"]);
}

#[test]
fn firecracker_reads_a_file() {
    let job = job(Mode::Ready);
    let arguments = arguments(&firecracker::Firecracker("firecracker".into()), &job);
    assert_eq!(arguments[..4], ["--no-api", "--level", "Off", "--config-file"]);
    let configuration: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&arguments[4]).unwrap()).unwrap();
    let expected = serde_json::json!({
        "boot-source": {"kernel_image_path": job.kernel(), "boot_args": "mode=ready"},
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
    });
    assert_eq!(configuration, expected);
}

#[test]
fn devices_are_given_by_what_is_behind_them() {
    let devices =
        Devices { disk: Some("/d/disk".into()), tap: Some("tap0".into()), vsock: Some("/d/vsock".into()) };
    let job = Job::with_devices("mode=blk".into(), devices, &std::env::temp_dir()).unwrap();
    let mote = arguments(&mote::Mote("mote".into()), &job).join(" ");
    let flags = "--disk /d/disk --net tap=tap0 --vsock cid=3,uds=/d/vsock";
    assert_eq!(mote, format!("run --cmdline mode=blk {flags}"));
    let arguments = arguments(&firecracker::Firecracker("firecracker".into()), &job);
    let configuration: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&arguments[4]).unwrap()).unwrap();
    assert_eq!(configuration["drives"][0]["path_on_host"], "/d/disk");
    assert_eq!(configuration["network-interfaces"][0]["host_dev_name"], "tap0");
    assert_eq!(configuration["vsock"], serde_json::json!({"guest_cid": 3, "uds_path": "/d/vsock"}));
}

#[test]
fn cloud_hypervisor_has_a_serial_port_and_no_other_console() {
    let job = job(Mode::Ready);
    let arguments = arguments(&cloud_hypervisor::CloudHypervisor("cloud-hypervisor".into()), &job).join(" ");
    let kernel = job.kernel();
    let expected =
        "--cpus boot=1 --memory size=128M --serial tty --console off --cmdline mode=ready --kernel";
    assert_eq!(arguments, format!("{expected} {}", kernel.display()));
}

#[test]
fn qemu_leaves_out_what_it_can() {
    let job = job(Mode::Ready);
    let arguments = arguments(&qemu::Qemu("qemu".into()), &job).join(" ");
    let kernel = job.kernel();
    let expected = "-M microvm,accel=kvm,x-option-roms=off,pit=off,pic=off,rtc=off,acpi=off,isa-serial=on,\
                    auto-kernel-cmdline=off -cpu host -smp 1 -m 128M -no-user-config -nodefaults -no-reboot \
                    -display none -serial stdio -append mode=ready -kernel";
    assert_eq!(arguments, format!("{expected} {}", kernel.display()));
}

#[test]
fn a_whole_pc_has_its_firmware() {
    let job = job(Mode::Ready);
    let arguments = arguments(&qemu_q35::Q35("qemu".into()), &job).join(" ");
    assert!(arguments.starts_with("-M q35,accel=kvm -cpu host -smp 1 -m 128M "), "{arguments}");
    assert!(arguments.ends_with(&format!("-append mode=ready -kernel {}", job.kernel().display())));
}

#[test]
fn processes_take_the_words_of_the_command_line() {
    let job = Job::with_devices("mode=cpu n=3".into(), Devices::default(), &std::env::temp_dir()).unwrap();
    assert_eq!(arguments(&process::Process("job".into()), &job), ["mode=cpu", "n=3"]);
    let node = arguments(&node::Node("node".into()), &job);
    assert_eq!(node[1..], ["mode=cpu", "n=3"]);
    assert!(fs::read_to_string(&node[0]).unwrap().contains("READY"));
    let bubblewrap = arguments(&bubblewrap::Bubblewrap("bwrap".into()), &job).join(" ");
    let root = job.root();
    let expected = "--proc /proc --dev /dev -- /job mode=cpu n=3";
    let expected = format!("--unshare-all --die-with-parent --ro-bind {} / {expected}", root.display());
    assert_eq!(bubblewrap, expected);
}

#[test]
fn containers_have_a_bundle_and_names_of_their_own() {
    let job = job(Mode::Idle);
    job.add_root(Path::new("/bin/sh")).unwrap();
    let crun = container::Container::crun("crun".into());
    let [first, second] = [(); 2].map(|()| arguments(&crun, &job));
    assert_eq!(first[..first.len() - 1], second[..second.len() - 1]);
    assert_ne!(first.last(), second.last());
    let bundle = Path::new(&first[5]);
    assert_eq!(first[3..5], ["run", "--bundle"]);
    let configuration: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(configuration["process"]["args"], serde_json::json!(["/job", "mode=idle"]));
    assert!(bundle.join("root/job").is_file() && bundle.join("root/proc").is_dir());
}

#[test]
fn what_would_be_left_behind_does_not_run() {
    let options = Options { runs: 1, seed: 1, machines: 1, subjects: vec!["process".into(), "crun".into()] };
    let gathered = gather_isolation(&options, Path::new("/job"), Some("not permitted")).unwrap();
    assert_eq!(gathered.present.iter().map(|it| it.name()).collect::<Vec<_>>(), ["process"]);
    assert_eq!(gathered.absent[0].name, "crun");
}

#[test]
fn the_table_names_every_subject_once() {
    let names = names();
    assert!(ISOLATION.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1));
    let peers = PEERS.iter().chain(&ISOLATORS).all(|peer| ISOLATION.contains(&peer.name));
    assert!(peers, "a peer that no bench runs");
}

#[test]
fn the_guest_is_on_disk_as_long_as_the_job() {
    let job = job(Mode::Ready);
    let kernel = job.kernel();
    assert_eq!(fs::read(&kernel).unwrap(), guest_kernel::ELF);
    drop(job);
    assert!(!kernel.exists());
}

#[test]
fn an_absent_peer_is_named() {
    let absent = PEERS[0].find(None, OsStr::new("/nonexistent:/dev")).unwrap_err();
    assert_eq!(absent.name, "firecracker");
    assert_eq!(absent.reason, "firecracker is not on PATH, and MOTE_PEER_FIRECRACKER is not set");
    let absent = PEERS[2].find(Some(OsStr::new("/dev/null")), OsStr::new("/bin")).unwrap_err();
    assert_eq!(
        (absent.name, &*absent.reason),
        ("qemu-microvm", "MOTE_PEER_QEMU=/dev/null is no executable file")
    );
}

#[test]
fn a_peer_is_found_where_the_variable_says_or_on_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cloud-hypervisor");
    fs::write(&file, "").unwrap();
    let find = |named: Option<&OsStr>| PEERS[1].find(named, directory.path().as_os_str());
    assert!(find(None).is_err(), "it is not executable");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(find(None), Ok(file.clone()));
    assert_eq!(find(Some(OsStr::new("/bin/sh"))), Ok("/bin/sh".into()));
}
