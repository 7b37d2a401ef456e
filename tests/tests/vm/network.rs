//! What a guest can reach. Everything happens in a network namespace of the test's own, which has no way out.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use pcocc_tests::{TestVm, in_own_network, run, scratch, vm_spec};
use pcocc_vm::machine::NetworkPolicy;

/// A listener that greets whoever comes.
fn greet(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("listen");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"reached\n");
        }
    });
    port
}

#[test]
fn guests_reach_the_outside_and_not_the_node_as_root() {
    if !in_own_network("network::guests_reach_the_outside_and_not_the_node_as_root") {
        return;
    }
    // A "public" host and a "private" one: a namespace behind a virtual cable. The node's own addresses are of both kinds.
    let mut far = Command::new("unshare");
    far.args([
        "--net",
        "sh",
        "-c",
        "ip link set lo up; exec busybox nc -ll -p 7000 -e echo reached",
    ]);
    let mut far = far.spawn().expect("a far host");
    let script = "set -e
        ip link set lo up
        ip link add node type veth peer name far
        # The far host's namespace is not ours once unshare has run.
        until [ $(readlink /proc/$1/ns/net) != $(readlink /proc/self/ns/net) ]; do sleep 0.05; done
        ip link set far netns $1
        ip address add 192.88.99.1/24 dev node; ip address add 10.99.0.1/24 dev node; ip link set node up
        far() { nsenter --target $1 --net ip $2; }
        far $1 'address add 192.88.99.2/24 dev far'; far $1 'address add 10.99.0.2/24 dev far'
        far $1 'link set far up'";
    run(Command::new("bash").args(["-c", script, "cable", &far.id().to_string()])).ok();
    let (loopback, any) = (greet("127.0.0.1"), greet("0.0.0.0"));
    let folder = scratch();
    let mut reached = Vec::new();
    for policy in [
        NetworkPolicy::Public,
        NetworkPolicy::Open,
        NetworkPolicy::Closed,
    ] {
        let mut spec = vm_spec(folder.path());
        spec.plan.network = policy;
        let vm = TestVm::start(spec);
        let targets = [
            ("198.18.0.2", loopback),
            ("198.18.1.2", loopback),
            ("198.18.1.2", any),
            ("192.88.99.1", any),
            ("192.88.99.2", 7000),
            ("10.99.0.2", 7000),
        ];
        let script: String = targets
            .iter()
            .map(|(host, port)| format!("nc -w 4 {host} {port} </dev/null 2>/dev/null | grep -q reached && echo yes || echo no\n"))
            .collect();
        let said = crate::ends::in_guest(&vm, &script);
        reached.push(
            said.split_whitespace()
                .map(|word| word == "yes")
                .collect::<Vec<_>>(),
        );
    }
    far.kill().expect("end the far host");
    let _ = far.wait();
    assert_eq!(
        reached[0],
        [false, false, false, false, true, false],
        "public only"
    );
    assert_eq!(
        reached[1],
        [false, false, false, true, true, true],
        "whatever the user reaches"
    );
    assert_eq!(reached[2], [false; 6], "nothing");
}
