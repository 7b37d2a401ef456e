//! Messages to the guest's agent: docker's settings before a snapshot, the job's identity after it.

use std::fs;
use std::io::Read;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pcocc_guest::protocol::{Adopt, Mount, Network, Prepare};
use serde_json::{Value, json};

use super::arguments::{GUEST_ADDRESS, GUEST_GATEWAY, share_tag};
use super::uplink::NAMESERVER;
use crate::clock::unix_nanoseconds;
use crate::machine::{GuestEnvironment, MachineError, MachineSpec, NetworkPolicy};
use pcocc_core::hex::hex;

/// The settings of the docker daemon, the same for all guests of a snapshot.
pub(super) fn prepare(spec: &MachineSpec, namespace: bool) -> Result<Prepare, MachineError> {
    let settings = &spec.plan.environment;
    let nameserver = match (namespace, spec.plan.network) {
        (true, NetworkPolicy::Public | NetworkPolicy::Open) => NAMESERVER,
        _ => GUEST_GATEWAY,
    };
    Ok(Prepare {
        time_ns: unix_nanoseconds(),
        environment: settings.proxies.clone(),
        ca_certificates: settings.ca_certificates.clone(),
        registry_certificates: settings.registry_certificates.clone(),
        daemon_json: daemon_json(settings)?,
        network: Network {
            address: format!("{GUEST_ADDRESS}/24"),
            gateway: GUEST_GATEWAY.to_owned(),
            nameserver: nameserver.to_owned(),
        },
    })
}

/// The identity of the job.
pub(super) fn adopt(spec: &MachineSpec) -> Result<Adopt, MachineError> {
    let random = random()?;
    let (id, rest) = random.split_at(16);
    let (engine, entropy) = rest.split_at(16);
    let engine = hex(engine);
    let part = |range: std::ops::Range<usize>| engine.get(range).unwrap_or_default();
    Ok(Adopt {
        time_ns: unix_nanoseconds(),
        entropy: BASE64_STANDARD.encode(entropy),
        hostname: spec.plan.hostname.clone(),
        machine_id: hex(id),
        engine_id: format!(
            "{}-{}-4{}-a{}-{}",
            part(0..8),
            part(8..12),
            part(13..16),
            part(17..20),
            part(20..32)
        ),
        ca_pem: spec.identity.ca_pem.clone(),
        cert_pem: spec.identity.cert_pem.clone(),
        key_pem: spec.identity.key_pem.clone(),
        user: spec.plan.user.clone(),
        mounts: spec
            .plan
            .shares
            .iter()
            .enumerate()
            .map(|(index, share)| Mount {
                tag: share_tag(index),
                dest: share.dest.clone(),
                read_only: share.read_only,
            })
            .collect(),
    })
}

/// Lays the site's settings over pcocc's own; those by which pcocc reaches the daemon stay.
fn daemon_json(environment: &GuestEnvironment) -> Result<Value, MachineError> {
    const OURS: [&str; 13] = [
        "hosts",
        "tls",
        "tlsverify",
        "tlscacert",
        "tlscert",
        "tlskey",
        "data-root",
        "exec-root",
        "pidfile",
        "containerd",
        "group",
        "userland-proxy-path",
        "init-path",
    ];
    let mut settings = json!({
        "hosts": ["unix:///run/docker.sock"],
        "data-root": "/data/docker",
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "containerd": "/run/containerd/containerd.sock",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "group": "root",
        "log-level": "warn",
    });
    for (name, list) in [
        ("registry-mirrors", &environment.registry_mirrors),
        ("insecure-registries", &environment.insecure_registries),
    ] {
        if !list.is_empty() {
            settings[name] = json!(list);
        }
    }
    let Some(own) = &environment.daemon_json else {
        return Ok(settings);
    };
    let Some(own) = own.as_object() else {
        return Err(MachineError::Spec(
            "daemon.json must be an object: {…}".into(),
        ));
    };
    for (name, value) in own {
        if OURS.contains(&name.as_str()) {
            return Err(MachineError::Spec(format!(
                "daemon.json sets {name:?}, by which pcocc reaches the docker daemon: remove it"
            )));
        }
        settings[name] = value.clone();
    }
    Ok(settings)
}

fn random() -> Result<[u8; 96], MachineError> {
    let mut bytes = [0; 96];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(MachineError::io("read", "/dev/urandom"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_laid_over_ours_and_cannot_cut_us_off() {
        let mut environment = GuestEnvironment {
            registry_mirrors: vec!["https://m".into()],
            insecure_registries: vec!["r:5000".into()],
            daemon_json: Some(json!({"log-level": "debug"})),
            ..GuestEnvironment::default()
        };
        let settings = daemon_json(&environment).unwrap();
        assert_eq!(settings["log-level"], "debug");
        assert_eq!(settings["insecure-registries"][0], "r:5000");
        assert_eq!(settings["registry-mirrors"][0], "https://m");
        assert_eq!(settings["data-root"], "/data/docker");
        for bad in [json!({"hosts": []}), json!({"tlsverify": false}), json!([])] {
            environment.daemon_json = Some(bad.clone());
            assert!(daemon_json(&environment).is_err(), "{bad}");
        }
    }
}
