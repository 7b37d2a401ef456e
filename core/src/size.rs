//! Sizes as people write them.

/// Reads a size: a number of bytes, or one with a unit of 1024, such as `500M`, `2.5 GB` or `1T`.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let number_ends = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    let unit = unit.trim_start().to_ascii_uppercase();
    let shift = match unit
        .strip_suffix("IB")
        .or(unit.strip_suffix('B'))
        .unwrap_or(&unit)
    {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("use a number with K, M, G or T behind it, such as 500M".to_owned()),
    };
    let factor = 1u64 << shift;
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(factor)
            .ok_or_else(|| "that is more than any disk holds".to_owned());
    }
    match number.parse::<f64>() {
        Ok(value) if value * (factor as f64) < u64::MAX as f64 => {
            Ok((value * factor as f64) as u64)
        }
        _ => Err("use a number of bytes, such as 500M or 2.5G".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12b", 12),
            ("500M", 500 << 20),
            ("2.5 GB", 5 << 29),
            ("1TiB", 1 << 40),
            (" 7k ", 7 << 10),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1X", "1.2.3G", "99999999999T", "many"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
