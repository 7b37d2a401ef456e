//! `pcocc docker forward`: published ports of a docker VM on this machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pcocc_vm::forward::{Rule, forward};

use crate::errors::{Failure, Outcome};
use crate::host::jobs::JobOption;
use crate::invocation::{Invocation, Run};
use crate::messages::warn;
use crate::output;

/// Interval at which the job is checked.
const LOOK: Duration = Duration::from_secs(2);

/// Reach ports of a docker VM from this machine
///
/// What containers publish (docker run -p 80:80) is a port of the VM. While this command runs, connections to PORT of
/// this machine's loopback go there. Ends with Ctrl-C, or with the VM.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc docker forward 8080          # port 8080 here, port 8080 of the VM\n  \
    pcocc docker forward 8080:80 5432"
)]
pub(crate) struct Args {
    /// A port here and one of the VM: PORT[:VMPORT]; PORT 0 is any that is free
    #[arg(required = true, value_name = "PORT[:VMPORT]", value_parser = parse)]
    ports: Vec<(u16, u16)>,
    #[command(flatten)]
    job: JobOption,
}

fn parse(text: &str) -> Result<(u16, u16), String> {
    let (here, there) = text.split_once(':').unwrap_or((text, text));
    match (here.parse(), there.parse()) {
        (Ok(here), Ok(there)) if there > 0 => Ok((here, there)),
        _ => Err("write a port, or two as in 8080:80".to_owned()),
    }
}

impl Run for Args {
    fn action(&self) -> String {
        "forward ports of a docker VM".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let job = self.job.choose(&invocation.host)?;
        let client = invocation.host.endpoint_client(&job)?;
        let mut rules = Vec::new();
        for (here, port) in self.ports {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, here));
            let listener = TcpListener::bind(address).map_err(|error| {
                let hint = match error.kind() {
                    io::ErrorKind::AddrInUse => "choose another port, or 0 for any that is free",
                    _ => "choose a port above 1023",
                };
                Failure::from(error)
                    .part(format!("listen at {address}"))
                    .hint(hint)
            })?;
            let bound = listener.local_addr()?;
            output::text(&format!(
                "Forwarding {bound} to port {port} of job {}\n",
                job.id()
            ))?;
            rules.push(Rule { listener, port });
        }
        let mut looked = Instant::now();
        let mut gone = false;
        let mut ended = || {
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                gone = invocation
                    .host
                    .job_now(job.id())
                    .map_or(true, |job| job.record.state.is_over());
            }
            gone
        };
        let failed = Arc::new(|why: String| warn(&why));
        forward(rules, &client, &invocation.cancel, &mut ended, failed)?;
        match gone {
            true => Err(Failure::because(format!("job {} is over", job.id()))),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        assert_eq!(parse("8080"), Ok((8080, 8080)));
        assert_eq!(parse("8080:80"), Ok((8080, 80)));
        assert_eq!(parse("0:80"), Ok((0, 80)));
        for text in ["", "0", "80:", ":80", "80:0", "70000", "a", "1:2:3"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
