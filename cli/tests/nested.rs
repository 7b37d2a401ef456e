//! Jobs that are asked for within a job.

mod sandbox;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use sandbox::Sandbox;

#[test]
fn slurm_is_asked_for_a_job_as_if_from_outside_of_any() {
    let sandbox = Sandbox::new();
    sandbox.write(".pcocc/batch.yaml", "type: slurm\n");
    for program in ["salloc", "sbatch"] {
        let script = "#!/bin/sh\ncat >/dev/null\nenv | grep -E '^(SLURM|SALLOC|SBATCH)' >\"$HOME/${0##*/}.env\"\nexit 9\n";
        sandbox.write(&format!("bin/{program}"), script);
        let path = sandbox.home().join("bin").join(program);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", sandbox.home().join("bin").display());
    for (verb, program) in [("alloc", "salloc"), ("batch", "sbatch")] {
        let mut command = sandbox.command(&["docker", verb, "-c", "2", "--mem", "2G"]);
        command
            .env("PATH", &path)
            .stdin(std::process::Stdio::null())
            .envs([
                ("SLURM_JOB_ID", "7"),
                ("SLURM_JOBID", "7"),
                ("SLURMD_NODENAME", "node1"),
                ("SLURM_MEM_PER_CPU", "100"),
                ("SLURM_CPUS_PER_TASK", "1"),
                ("SLURM_EXCLUSIVE", "user"),
                ("SLURM_GPUS", "2"),
                ("SLURM_CONF", "/etc/slurm.conf"),
                ("SBATCH_PARTITION", "sandy"),
                ("SALLOC_PARTITION", "sandy"),
            ]);
        let output = command.output().unwrap();
        let file = sandbox.home().join(format!("{program}.env"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = fs::read_to_string(file).expect(&said);
        let mut names: Vec<&str> = found
            .lines()
            .filter_map(|line| line.split('=').next())
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["SALLOC_PARTITION", "SBATCH_PARTITION", "SLURM_CONF"],
            "{program}"
        );
    }
}
