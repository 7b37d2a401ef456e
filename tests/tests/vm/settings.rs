//! What docker is told of the site when a VM starts: proxies, authorities, mirrors, and that they can be reached. In a network
//! namespace of the test's own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use pcocc_tests::{Registry, TestVm, in_own_network, run, scratch, vm_spec};
use pcocc_vm::machine::NetworkPolicy;
use serde_json::json;

/// A private address of the node's, which is closed to VMs unless something of the site is there.
const SITE: &str = "10.99.0.1";

/// A proxy that hangs up on everybody and keeps what it was asked for.
fn proxy() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((SITE, 0)).expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(stream).read_line(&mut line);
            keep.lock().expect("the list").push(line.trim().to_owned());
        }
    });
    (port, asked)
}

#[test]
fn docker_knows_the_site_as_root() {
    if !in_own_network("settings::docker_knows_the_site_as_root") {
        return;
    }
    let script = "ip link set lo up; ip link add site type veth peer name far
        ip link set site up; ip link set far up
        ip address add 10.99.0.1/24 dev site; ip address add 10.99.0.9/32 dev site";
    run(Command::new("sh").args(["-euc", script])).ok();
    let registry = Registry::with_tls_at(SITE);
    let (port, asked) = proxy();
    let other = TcpListener::bind("10.99.0.9:0").expect("listen");
    let other = other.local_addr().expect("an address").port();
    let folder = scratch();
    let mut spec = vm_spec(folder.path());
    // These settings are nobody else's: a snapshot would push another one out.
    spec.plan.snapshot = false;
    spec.plan.network = NetworkPolicy::Public;
    spec.plan.reachable = vec![SITE.parse().expect("an address")];
    let authority = fs::read_to_string(registry.authority()).expect("the authority");
    spec.plan.environment.registry_certificates =
        [(registry.address().to_owned(), authority)].into();
    spec.plan.environment.registry_mirrors = vec![format!("https://{}", registry.address())];
    spec.plan.environment.insecure_registries = vec!["reg.example.org:5000".into()];
    spec.plan.environment.daemon_json = Some(json!({"labels": ["of=the-job"]}));
    spec.plan.environment.proxies = [
        ("HTTPS_PROXY", format!("http://user:word@{SITE}:{port}")),
        ("NO_PROXY", format!("{SITE},127.0.0.1")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let vm = TestVm::start(spec);
    let format = "{{.Labels}} {{json .RegistryConfig.InsecureRegistryCIDRs}} {{json .RegistryConfig.IndexConfigs}}";
    let info = vm.run(&["info", "--format", format]);
    assert!(
        info.contains("of=the-job") && info.contains("reg.example.org:5000"),
        "{info}"
    );
    // The authority is trusted for its registry, which is at a private address.
    vm.load_busybox();
    let there = format!("{}/library/bb:1", registry.address());
    vm.run(&["tag", "bb", &there]);
    vm.run(&["push", &there]);
    vm.run(&["rmi", &there, "bb"]);
    // The mirror is asked before Docker Hub.
    vm.run(&["pull", "bb:1"]);
    vm.run(&["run", "--rm", "bb:1", "true"]);
    // All else goes through the proxy.
    let refused = vm.try_run(&["pull", "registry.example.org/x:1"]);
    assert!(!refused.status.success(), "{refused}");
    let asked = asked.lock().expect("the list").clone();
    assert!(
        asked
            .iter()
            .any(|line| line.starts_with("CONNECT registry.example.org:443")),
        "{asked:?}"
    );
    // What is not the site's stays closed, although it is next to it.
    let script = format!(
        "nc -w 4 {SITE} {port} </dev/null && echo site; nc -w 4 10.99.0.9 {other} </dev/null && echo other; true"
    );
    let said = crate::ends::in_guest(&vm, &script);
    assert!(said.contains("site") && !said.contains("other\n"), "{said}");
}
