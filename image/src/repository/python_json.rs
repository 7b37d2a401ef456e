//! JSON in the form of Python's `json.dumps`.
//!
//! pcocc 0.7 writes image metadata with `json.dump` and names cache entries by the hash of `json.dumps`: key
//! order, separators, escapes and the form of every number must be the same. `serde_json` cuts the text into
//! [`RawValue`]s. A `Value` would not do: Python's integers have any size, and `-0` is an integer.

use std::fmt::Write as _;

use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// Deepest nesting that is written, at least as deep as `serde_json` reads.
const MAX_DEPTH: usize = 128;

/// The members of an object in their order. A repeated key keeps its place and takes the last value, as in Python.
pub(crate) type Members<'a> = IndexMap<String, &'a RawValue>;

/// Writes the JSON `text` as `json.dumps(json.loads(text))` does.
pub(crate) fn normalize(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    serde_json::from_str(text)
        .and_then(|value| write(value, 0, &mut out))
        .map_err(|error| Error::invalid("JSON", format!("does not parse: {error}")))?;
    Ok(out)
}

fn write(value: &RawValue, depth: usize, out: &mut String) -> serde_json::Result<()> {
    if depth > MAX_DEPTH {
        return Err(serde::de::Error::custom("nested too deeply"));
    }
    let text = value.get();
    match text.bytes().next() {
        Some(b'{') => {
            let members: Members<'_> = serde_json::from_str(text)?;
            out.push('{');
            for (i, (key, value)) in members.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_text(key, out);
                out.push_str(": ");
                write(value, depth + 1, out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            out.push('[');
            for (i, item) in items.into_iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write(item, depth + 1, out)?;
            }
            out.push(']');
        }
        Some(b'"') if text[1..text.len() - 1].chars().all(is_plain) => out.push_str(text),
        Some(b'"') => write_text(&serde_json::from_str::<String>(text)?, out),
        Some(b'-' | b'0'..=b'9') if text.contains(['.', 'e', 'E']) => {
            write_float(serde_json::from_str(text)?, out);
        }
        // An integer keeps its digits.
        _ => out.push_str(if text == "-0" { "0" } else { text }),
    }
    Ok(())
}

/// Writes a string in ASCII, other characters as UTF-16 escapes.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c| !is_plain(c)) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = special.chars();
        match chars.next().unwrap_or_default() {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

/// Whether a string holds the character as it is.
fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') && c != '"' && c != '\\'
}

/// Writes a float as Python's `repr`: the shortest digits that read back, with an exponent below
/// 1e-4 and from 1e16 on.
fn write_float(number: f64, out: &mut String) {
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        // The format `Debug` gives whole numbers their ".0".
        let _ = write!(out, "{number:?}");
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Input and what Python 3.11 prints for `json.dumps(json.loads(input))`.
    const GOLDEN: &[(&str, &str)] = &[
        (
            r#"{"b":1,"a":[1,2.0,-0,-0.0]}"#,
            r#"{"b": 1, "a": [1, 2.0, 0, -0.0]}"#,
        ),
        (r#"[-0e0,-0.0e-3,-1,-1.50]"#, r#"[-0.0, -0.0, -1, -1.5]"#),
        (
            r#"[1700000000.1234567,1e16,1e15,123456789012345680]"#,
            r#"[1700000000.1234567, 1e+16, 1000000000000000.0, 123456789012345680]"#,
        ),
        (
            r#"[0.0001,0.00001,1.5e-7,1e100,5e-324,1E3]"#,
            r#"[0.0001, 1e-05, 1.5e-07, 1e+100, 5e-324, 1000.0]"#,
        ),
        // Integers above u64 and below i64, and the nearest double of each.
        (
            r#"[18446744073709551615,18446744073709551616,-9223372036854775809,18446744073709551616.0]"#,
            r#"[18446744073709551615, 18446744073709551616, -9223372036854775809, 1.8446744073709552e+19]"#,
        ),
        (
            r#"[99999999999999999999999999,1.7976931348623157e308]"#,
            r#"[99999999999999999999999999, 1.7976931348623157e+308]"#,
        ),
        // Digits that serde_json rounds without its feature `float_roundtrip`.
        (
            r#"[122.416294033786585,0.3233540654182434,1e-400]"#,
            r#"[122.41629403378658, 0.3233540654182434, 0.0]"#,
        ),
        (
            "[\"é\u{1f600}\u{7f}/<\\u0001\\b\\f\\n\\r\\t\\\"\\\\\"]",
            r#"["\u00e9\ud83d\ude00\u007f/<\u0001\b\f\n\r\t\"\\"]"#,
        ),
        (
            r#"["\ud83d\ude00\/\u00e9\uD83D\uDE00"]"#,
            r#"["\ud83d\ude00/\u00e9\ud83d\ude00"]"#,
        ),
        (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
        (
            r#"{"z":{"a":1,"\u0061":{}},"":[]}"#,
            r#"{"z": {"a": {}}, "": []}"#,
        ),
        ("  { } ", "{}"),
        (" \t\r\n7\n", "7"),
        ("[null,true,false,[],\"\"]", "[null, true, false, [], \"\"]"),
    ];

    #[test]
    fn writes_what_python_writes() {
        for (input, output) in GOLDEN {
            assert_eq!(&normalize(input).unwrap(), output);
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "-01",
            "1.",
            ".5",
            "+1",
            // Python reads and writes these numbers; pcocc 0.7 has none of them.
            "NaN",
            "[-Infinity]",
            "Infinity",
            "1e999",
            "-1e999",
            "\"",
            "\"\\x\"",
            // Python writes halves of surrogate pairs for names that are not UTF-8.
            "\"\\ud800\"",
            "{\"\\ud800\":1}",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\u+123\"",
            "\"a\nb\"",
            "1 2",
            "{} {}",
            "tru",
            "-",
            "[\"\\u00é\"]",
            "\u{feff}{}",
            "\u{c}{}",
            "{}\u{c}",
        ] {
            assert!(normalize(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let read =
            (1..200).take_while(|depth| serde_json::from_str::<Value>(&nested(*depth)).is_ok());
        let deepest = read.last().unwrap();
        assert_eq!(normalize(&nested(deepest)).unwrap(), nested(deepest));
        assert!(normalize(&nested(200)).is_err());
        assert!(normalize(&nested(5_000)).is_err());
        assert!(normalize(&"[".repeat(100_000)).is_err());
        assert!(normalize(&"{\"a\":".repeat(100_000)).is_err());
    }

    #[test]
    fn many_members_are_read() {
        let members: Vec<String> = (0..100_000).map(|n| format!("\"{n}\": {n}")).collect();
        let text = format!("{{{}}}", members.join(", "));
        assert_eq!(normalize(&text).unwrap(), text);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn keeps_the_value(value in any_json()) {
            let text = normalize(&value.to_string()).unwrap();
            prop_assert!(text.is_ascii());
            prop_assert_eq!(&normalize(&text).unwrap(), &text);
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }

        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = normalize(&text);
        }
    }
}
