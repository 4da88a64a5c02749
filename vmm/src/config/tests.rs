use super::*;
use devices::rate_limiter::Limit;
use proptest::prelude::*;

#[test]
fn sizes_have_units() {
    for (text, mib) in [
        ("128", 128),
        ("128M", 128),
        ("128MiB", 128),
        ("1g", 1024),
        ("2G", 2048),
        ("1048576K", 1024),
        ("1T", 1 << 20),
    ] {
        assert_eq!(parse_size(text), Ok(mib << 20), "{text}");
    }
    for text in ["", "M", "-1", "1.5G", "12X", "0x10", "128 M", "MiB", "1iB"] {
        assert!(matches!(text.parse::<MemorySize>(), Err(ValueError::Size(_))), "{text}");
    }
}

#[test]
fn memory_is_within_the_layout() {
    for text in ["0", "1M", "15M", "512G", "99999999999999999T", "16777217K"] {
        assert!(matches!(text.parse::<MemorySize>(), Err(ValueError::Memory(_))), "{text}");
    }
    for text in ["16M", "64G", "511G", "3073M"] {
        assert!(text.parse::<MemorySize>().is_ok(), "{text}");
    }
}

#[test]
fn a_machine_has_1_to_32_cpus() {
    for text in ["0", "33", "256", "-1", "", "two", "99999999999999999999999"] {
        assert!(matches!(text.parse::<CpuCount>(), Err(ValueError::Cpus(_))), "{text}");
    }
    assert_eq!("32".parse::<CpuCount>().unwrap().get(), 32);
}

#[test]
fn two_mib_pages_cover_whole_multiples() {
    let mut config = VmConfig { backing: PageBacking::HugeTlb, ..VmConfig::default() };
    assert_eq!(config.validate(), Ok(()));
    config.memory = "17M".parse().unwrap();
    assert_eq!(config.validate(), Err(ValueError::HugePageMultiple(17 << 20)));
}

const WHOLE: &str = r#"{
    "boot-source": {"kernel_image_path": "/k", "initrd_path": "/i", "boot_args": "console=ttyS0 -- -c true"},
    "machine-config": {"vcpu_count": 2, "mem_size_mib": 1024, "smt": false, "track_dirty_pages": false,
        "cpu_template": "None", "huge_pages": "2M"},
    "logger": {"log_path": "/l", "level": "Debug", "show_level": true, "show_log_origin": false},
    "drives": [
        {"drive_id": "data", "is_root_device": false, "path_on_host": "/d", "is_read_only": true,
            "rate_limiter": {"bandwidth": {"size": 100, "refill_time": 10, "one_time_burst": 7}}},
        {"drive_id": "root", "is_root_device": true, "path_on_host": "/r", "cache_type": "Writeback",
            "io_engine": "Async"}
    ],
    "entropy": {},
    "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "t0", "guest_mac": "02:00:00:00:00:01", "mtu": 1400}], "vsock": {"guest_cid": 3, "uds_path": "/v"},
    "balloon": {"amount_mib": 8, "deflate_on_oom": true, "stats_polling_interval_s": 1}
}"#;

#[test]
fn firecrackers_file_becomes_a_machine() {
    let file = ConfigFile::parse(WHOLE.as_bytes()).unwrap();
    assert_eq!(
        file.logger(),
        LoggerConfig { path: Some("/l".into()), level: Some("debug".parse().unwrap()) }
    );
    let config = file.into_config().unwrap();
    assert_eq!(config.kernel, Kernel::File("/k".into()));
    assert_eq!(config.initrd, Some("/i".into()));
    assert_eq!(config.cmdline.as_str(), "console=ttyS0 root=/dev/vda rw -- -c true");
    let limit = Limit { size: 100, refill_ms: 10, burst: 7 };
    let data = Disk {
        read_only: true,
        cache: Cache::Unsafe,
        id: Some("data".into()),
        limits: RateLimits { bandwidth: Some(limit), operations: None },
        ..Disk::new("/d")
    };
    let root = Disk { id: Some("root".into()), ..Disk::new("/r") };
    assert_eq!(config.disks, [root, data], "the root device is the first");
    assert_eq!(config.vsock, Some(Vsock { cid: 3, uds: "/v".into() }));
    let nic = Nic { mtu: Some(1400), ..("tap=t0,mac=02:00:00:00:00:01".parse().unwrap()) };
    assert_eq!(config.nics, [nic]);
    assert_eq!(config.rng, Some(RateLimits::default()));
    assert_eq!(
        config.balloon.as_ref().map(|balloon| (balloon.size, balloon.deflate_on_oom)),
        Some((8 << 20, true))
    );
    assert_eq!((config.cpus.get(), config.memory.bytes()), (2, 1 << 30));
    assert_eq!(config.backing, PageBacking::HugeTlb);
    assert_eq!(config.validate(), Ok(()));
}

#[test]
fn what_the_format_has_and_mote_has_not_is_refused_by_name() {
    let cases = [
        (r#"{"drives": [{"drive_id": "root", "is_root_device": true, "socket": "/s"}]}"#, "drives.socket"),
        (
            r#"{"balloon": {"amount_mib": 1, "deflate_on_oom": true, "free_page_hinting": true}}"#,
            "balloon.free_page_hinting",
        ),
        (r#"{"pmem": [{}]}"#, "pmem"),
        (r#"{"machine-config": {"vcpu_count": 1, "mem_size_mib": 128, "smt": true}}"#, "machine-config.smt"),
        (
            r#"{"machine-config": {"vcpu_count": 1, "mem_size_mib": 128, "cpu_template": "T2"}}"#,
            "machine-config.cpu_template",
        ),
        (r#"{"logger": {"show_level": false}}"#, "logger.show_level"),
    ];
    for (text, expected) in cases {
        match ConfigFile::parse(text.as_bytes()) {
            Err(FileError::Refused { field, .. }) => assert_eq!(field, expected),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn wrong_files_name_the_field() {
    let line = |text: &[u8]| {
        let error = ConfigFile::parse(text).and_then(ConfigFile::into_config).unwrap_err();
        crate::error_line(&error)
    };
    let cases: [(&[u8], &str); 11] = [
        (br#"{"drives": [{"drive_id": "a", "is_root_device": true}]}"#, "path_on_host is missing"),
        (
            br#"{"drives": [{"drive_id": "a", "is_root_device": true, "path_on_host": "/a"},
                {"drive_id": "b", "is_root_device": true, "path_on_host": "/b"}]}"#,
            "only one can be the root device",
        ),
        (br#"{"vsock": {"guest_cid": 2, "uds_path": "/v"}}"#, "vsock.guest_cid"),
        (br#"{"boot-sauce": {}}"#, "boot-sauce"),
        (br#"{"boot-source": {"kernel_image_path": "/k", "bot_args": ""}}"#, "bot_args"),
        (br#"{"boot-source": {"kernel_image_path": 7}}"#, "expected path string"),
        (br#"{"machine-config": {"vcpu_count": 0, "mem_size_mib": 128}}"#, "machine-config.vcpu_count"),
        (br#"{"machine-config": {"vcpu_count": 1, "mem_size_mib": 1}}"#, "machine-config.mem_size_mib"),
        (br#"{"machine-config": {"vcpu_count": -1, "mem_size_mib": 128}}"#, "invalid value"),
        (
            br#"{"boot-source": {"kernel_image_path": "/k", "boot_args": "a\u0000b"}}"#,
            "boot-source.boot_args",
        ),
        (b"{\"logger\": {\"level\": \"\xff\"}}", "line 1"),
    ];
    for (text, expected) in cases {
        let line = line(text);
        assert!(line.contains(expected), "{line} does not say {expected}");
    }
    assert!(ConfigFile::parse(b"").is_err());
    assert!(ConfigFile::parse(b"[1]").is_err());
}

proptest! {
    /// Whatever is in the file, the answer is a machine or an error.
    #[test]
    fn no_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = ConfigFile::parse(&bytes).and_then(ConfigFile::into_config);
    }

    /// A machine that is accepted can be laid out: its RAM regions add up to its size.
    #[test]
    fn accepted_memory_can_be_laid_out(mib in any::<u64>()) {
        if let Ok(size) = MemorySize::from_mib(mib) {
            prop_assert_eq!(size.regions().unwrap().total(), mib << 20);
        }
    }
}
