//! `WWW-Authenticate` headers (RFC 9110 §11.6.1): how a registry wants to know who asks.

/// A challenge of a registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// Where tokens are issued.
        realm: String,
        /// Who the token is for.
        service: Option<String>,
    },
}

impl Challenge {
    /// Parses one header, which may hold several challenges. Schemes that nobody here can answer are left out.
    pub(super) fn parse(header: &str) -> Vec<Self> {
        let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            if word.is_empty() {
                break;
            }
            let word = word.to_ascii_lowercase();
            match (tail.trim_start().strip_prefix('='), found.last_mut()) {
                (Some(tail), Some((_, parameters))) => {
                    let Some((value, tail)) = value(tail.trim_start()) else {
                        // A quotation without an end; nothing after it means anything.
                        found.pop();
                        break;
                    };
                    parameters.push((word, value));
                    rest = tail;
                }
                (Some(_), None) => break,
                (None, _) => {
                    found.push((word, Vec::new()));
                    rest = tail;
                }
            }
        }
        found.into_iter().filter_map(Self::of).collect()
    }

    fn of((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Self> {
        let parameter = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        match scheme.as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => Some(Self::Bearer {
                realm: parameter("realm")?,
                service: parameter("service"),
            }),
            _ => None,
        }
    }
}

/// Takes a parameter's value, a token or a quoted string, off the front.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, tail) = text.split_at(end);
        return Some((value.to_owned(), tail));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_are_parsed() {
        for (header, expected) in [
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://a/t\",service=\"s\"",
                vec![bearer("https://a/t", Some("s"))],
            ),
            (
                "Bearer service=\"s, t\", realm=\"https://a/t\"",
                vec![bearer("https://a/t", Some("s, t"))],
            ),
            (
                "bearer realm=https://a/t,scope=x",
                vec![bearer("https://a/t", None)],
            ),
            (
                "Bearer realm = \"a \\\"b\\\" c\"",
                vec![bearer("a \"b\" c", None)],
            ),
            (
                "Basic realm=\"r\", Bearer realm=\"https://a/t\",service=\"s\"",
                vec![Challenge::Basic, bearer("https://a/t", Some("s"))],
            ),
            (
                "Negotiate dG9rZW4=, Bearer realm=\"https://a/t\", Basic",
                vec![bearer("https://a/t", None), Challenge::Basic],
            ),
            ("Bearer realm=\"open", vec![]),
            ("Basic, Bearer realm=\"open", vec![Challenge::Basic]),
            ("Bearer", vec![]),
            ("Negotiate", vec![]),
            ("=, =", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(Challenge::parse(header), expected, "{header}");
        }
    }
}
