//! Flags, hosts files, and processes that come together.

use super::*;

fn cluster(processes: usize, process: usize, hosts: Option<&str>) -> (tempfile::TempDir, Cluster) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts.txt");
    hosts.iter().for_each(|text| std::fs::write(&path, text).unwrap());
    let cluster = Cluster {
        processes,
        process,
        hosts: hosts.map(|_| path),
        connect_timeout: Duration::from_secs(60),
        heartbeat_timeout: Duration::from_secs(60),
        ..Cluster::single(1)
    };
    (dir, cluster)
}

#[test]
fn a_secret_is_needed_as_soon_as_a_process_is_elsewhere() {
    let check = |hosts: &str, secret: Option<&str>, expected: Option<&str>| {
        let (_dir, mut cluster) = cluster(2, 0, Some(hosts));
        cluster.secret = secret.map(Secret::new);
        let refused = cluster.check_secret(&cluster.addresses().unwrap()).err();
        assert_eq!(refused.as_ref().map(ClusterError::exit), expected.map(|_| Exit::Configuration));
        let line = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(line.contains(expected.unwrap_or_default()), "{line}");
        assert!(line.is_empty() || line.contains("set cluster.secret_file"), "{line}");
    };
    check("127.0.0.1:1\nlocalhost:2", None, None);
    check("127.8.0.1:1\n[::1]:2", None, None);
    check("127.0.0.1:1\n192.0.2.1:2", None, Some("process 1 is at 192.0.2.1:2"));
    check("0.0.0.0:1\n127.0.0.1:2", None, Some("process 0 is at 0.0.0.0:1"));
    check("127.0.0.1:1\nnowhere.invalid:2", None, Some("process 1 is at nowhere.invalid:2"));
    check("127.0.0.1:1\n192.0.2.1:2", Some("a secret"), None);
    // Only those that take part count.
    check("127.0.0.1:1\n127.0.0.1:2\n192.0.2.1:2", None, None);
    // And one alone lets nobody in.
    let (_dir, one) = cluster(1, 0, Some("192.0.2.1:2"));
    assert!(one.check_secret(&one.addresses().unwrap()).is_ok());
}

#[test]
fn three_processes_come_together_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts.txt");
    local_hosts(3, &path).unwrap();
    let start = JobStart::fresh(4);
    std::thread::scope(|scope| {
        for process in [2, 1, 0] {
            let (path, start) = (path.clone(), &start);
            scope.spawn(move || {
                let (_dir, mut cluster) = cluster(3, process, None);
                cluster.hosts = Some(path);
                cluster.secret = Some(Secret::new("a secret of all three"));
                let begin = || {
                    assert_eq!(process, 0);
                    Ok(start.clone())
                };
                let (allocators, met) = assemble::<ClusterError>(&cluster, "the job", begin).unwrap();
                assert_eq!(met.generation, start.generation);
                assert_eq!(met.input, start.input);
                // A job of nothing, which ends everywhere.
                let Allocators { builders, guard, .. } = allocators;
                let config = timely::WorkerConfig::default();
                let workers = timely::execute::execute_from(builders, guard, config, |worker| worker.peers()).unwrap();
                assert!(workers.join().into_iter().all(|peers| peers == Ok(3)));
            });
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}
