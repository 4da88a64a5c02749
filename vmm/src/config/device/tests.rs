use proptest::prelude::*;

use super::*;

#[test]
fn disks() {
    assert_eq!("/images/root.img".parse(), Ok(Disk::new("/images/root.img")));
    assert_eq!("readonly".parse(), Ok(Disk::new("readonly")), "a file of that name");
    let disk: Disk =
        "a,,b,readonly,direct,cache=unsafe,queues=4,id=d0,bandwidth=10M,ops=500".parse().unwrap();
    let limit = |size| Some(Limit { size, refill_ms: 1000, burst: 0 });
    let expected = Disk {
        path: "a,b".into(),
        read_only: true,
        direct: true,
        cache: Cache::Unsafe,
        queues: 4,
        id: Some("d0".into()),
        limits: RateLimits { bandwidth: limit(10 << 20), operations: limit(500) },
    };
    assert_eq!(disk, expected);
    for text in
        ["", ",readonly", "a,ro", "a,queues=0", "a,queues=33", "a,cache=none", "a,bandwidth=x", "a,ops="]
    {
        assert!(text.parse::<Disk>().is_err(), "{text}");
    }
}

#[test]
fn interfaces() {
    let nic: Nic = "tap=t0,mac=02:00:00:00:00:01,mtu=9000,rx-ops=10,tx-bandwidth=1M".parse().unwrap();
    let limit = |size| Some(Limit { size, refill_ms: 1000, burst: 0 });
    assert_eq!(nic.tap, Tap::Name("t0".to_owned()));
    assert_eq!(nic.mac.map(|mac| mac.to_string()).as_deref(), Some("02:00:00:00:00:01"));
    assert_eq!(nic.mtu, Some(9000));
    assert_eq!((nic.rx.operations, nic.tx.bandwidth), (limit(10), limit(1 << 20)));
    assert_eq!("fd=7".parse::<Nic>().map(|nic| nic.tap), Ok(Tap::Descriptor(7)));
    for text in ["", "t0", "tap=", "tap=t0,fd=3", "fd=-1", "tap=t0,mac=01:00:00:00:00:01", "tap=t0,mtu=70000"]
    {
        assert!(text.parse::<Nic>().is_err(), "{text}");
    }
}

#[test]
fn sockets() {
    assert_eq!("cid=3,uds=/run/v".parse(), Ok(Vsock { cid: 3, uds: "/run/v".into() }));
    for text in
        ["", "cid=3", "uds=/run/v", "cid=2,uds=v", "cid=4294967295,uds=v", "cid=x,uds=v", "cid=3,uds=v,a"]
    {
        assert!(text.parse::<Vsock>().is_err(), "{text}");
    }
}

#[test]
fn balloons() {
    let balloon: Balloon = "64M,deflate-on-oom,free-page-reporting,stats=5".parse().unwrap();
    let expected = Balloon {
        size: 64 << 20,
        deflate_on_oom: true,
        free_page_reporting: true,
        stats: Some(Duration::from_secs(5)),
    };
    assert_eq!(balloon, expected);
    for text in ["", "x", "stats=1", "deflate-on-oom", "1M,stats=0", "1M,stats", "1M,inflate"] {
        assert!(text.parse::<Balloon>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[ -~,=]{0,40}") {
        let _ = text.parse::<Disk>();
        let _ = text.parse::<Nic>();
        let _ = text.parse::<Vsock>();
        let _ = text.parse::<Balloon>();
    }
}
