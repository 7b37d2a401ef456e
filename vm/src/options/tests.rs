//! Command lines as people write them.

use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

const OWN: &[OwnOption<'_>] = &[
    ("E", true),
    ("T", true),
    ("mount", true),
    ("no-snapshot", false),
];

#[test]
fn own_options_are_found_among_the_schedulers() {
    for (line, own, scheduler) in [
        ("-p sandy -c 16", "", "-p sandy -c 16"),
        ("-p sandy -c 16 --mount m", "--mount m", "-p sandy -c 16"),
        ("-E true -p sandy", "-E true", "-p sandy"),
        ("-Etrue -T60 -t 60", "-Etrue -T60", "-t 60"),
        ("--mount=m -psandy", "--mount=m", "-psandy"),
        // The value of another option is not ours, whatever it looks like.
        ("-J -E --comment --mount", "", "-J -E --comment --mount"),
        ("-J --no-snapshot", "", "-J --no-snapshot"),
        ("--exclusive --no-snapshot", "--no-snapshot", "--exclusive"),
        ("-H -E x", "-E x", "-H"),
        ("-Hp -E x", "x", ""),
        ("--no-snapshot=1", "", "--no-snapshot=1"),
        // Behind -- nothing is ours.
        ("-E x -- -E y --mount z", "-E x", "-E y --mount z"),
        ("-T", "-T", ""),
        // Only whole names: --mou may be the scheduler's.
        ("--mou m", "", "--mou m"),
    ] {
        if line.starts_with("-Hp") {
            // -H -p with the value "-E": what follows is a word of its own.
            assert_eq!(separate(&words(line), OWN), (vec![], words("-Hp -E x")));
            continue;
        }
        let expected = (words(own), words(scheduler));
        assert_eq!(separate(&words(line), OWN), expected, "{line}");
    }
}

#[test]
fn words_with_spaces_stay_whole() {
    let line = ["--comment=two words", "-J", "a b", "--mount", "/tmp/a b"].map(OsString::from);
    let (own, scheduler) = separate(&line, OWN);
    assert_eq!(own, ["--mount", "/tmp/a b"].map(OsString::from));
    assert_eq!(
        scheduler,
        ["--comment=two words", "-J", "a b"].map(OsString::from)
    );
}

#[test]
fn what_would_run_something_else_is_refused() {
    for line in [
        "",
        "-p sandy -c 16 -t 60",
        "--exclusive --mem 4G -N1 -n 1",
        "--signal=B:USR1@60 -d afterok:5 -Hs",
        "--some-new-option value",
        "-I10 -K9 --immediate",
    ] {
        check(&words(line)).unwrap();
    }
    for (line, part) in [
        ("-p sandy bash", "\"bash\" is no option"),
        ("script.sh -p sandy", "script.sh"),
        ("--exclusive bash", "\"bash\""),
        ("-H bash", "\"bash\""),
        ("-a 1-3", "-a asks for many"),
        ("-a1-3", "-a asks for many"),
        ("--array=1-3", "--array asks for many"),
        ("--arr 1", "--arr asks for many"),
        ("--wrap=true", "--wrap names a command"),
        ("-p x --no-shell", "--no-shell leaves"),
        ("-", "\"-\" is no option"),
    ] {
        let error = check(&words(line)).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn the_local_backend_understands_the_common_ones() {
    let request = LocalRequest::parse(&words(
        "-p sandy -c 4 --mem=4G -J work -t 1:30 --exclusive --qos high",
    ))
    .unwrap();
    assert_eq!(
        request,
        LocalRequest {
            cpus: Some(4),
            memory_mib: Some(4096),
            name: Some("work".into()),
            time: Some(Duration::from_secs(90)),
            ignored: vec!["-p".into(), "--exclusive".into(), "--qos".into()],
        }
    );
    let request = LocalRequest::parse(&words("--cpus-per-task=2 --mem-per-cpu 500M")).unwrap();
    assert_eq!(request.memory_mib, Some(1000));
    for line in [
        "-c 0",
        "-c x",
        "--mem lots",
        "--mem 0",
        "-t soon",
        "-t",
        "-J",
        "bash",
    ] {
        assert!(LocalRequest::parse(&words(line)).is_err(), "{line}");
    }
}

#[test]
fn times_and_sizes_are_slurms() {
    for (text, seconds) in [
        ("60", 3600),
        ("1:30", 90),
        ("2:00:00", 7200),
        ("1-0", 86400),
        ("1-2:30", 86400 + 9000),
        ("1-00:00:01", 86401),
    ] {
        assert_eq!(
            duration(text),
            Some(Some(Duration::from_secs(seconds))),
            "{text}"
        );
    }
    for text in ["0", "UNLIMITED", "infinite", "-1"] {
        assert_eq!(duration(text), Some(None), "{text}");
    }
    for text in [
        "",
        "x",
        "1:",
        "1-",
        "-",
        "1:2:3:4",
        "9999999999999",
        "+5",
        "1-1:1:1:1",
    ] {
        assert_eq!(duration(text), None, "{text}");
    }
    for (text, mib) in [
        ("512", 512),
        ("4g", 4096),
        ("4GB", 4096),
        ("2048K", 2),
        ("1T", 1 << 20),
    ] {
        assert_eq!(memory(text), Some(mib), "{text}");
    }
    for text in [
        "",
        "G",
        "0",
        "4X",
        "1K",
        "99999999999999999999G",
        "99999999999999999T",
    ] {
        assert_eq!(memory(text), None, "{text}");
    }
}
