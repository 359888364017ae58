//! Kinds of values: each function checks one and says in words that follow the key's name what is wrong.

use std::time::Duration;

use microfaas_http::Route;
use microfaas_node::{Loading, Policy};
use toml::de::DeValue;

/// The rule for names of functions, as messages say it.
pub(super) const FUNCTION_NAME: &str = "1 to 64 of a-z, 0-9, -, _ and ., starting with a letter or digit";

/// What a value is, in words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn not(value: &DeValue<'_>, expected: &str) -> String {
    match value {
        DeValue::String(text) => format!("is {text:?}, expected {expected}"),
        _ => format!("is {}, expected {expected}", kind(value)),
    }
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| not(value, "true or false"))
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| not(value, "a string"))
}

/// A path of a file.
pub(super) fn path(value: &DeValue<'_>) -> Result<String, String> {
    let path = text(value)?;
    if path.is_empty() { Err(not(value, "a path")) } else { Ok(path) }
}

/// A path of a URL, or `off`.
pub(super) fn path_or_off(value: &DeValue<'_>) -> Result<Option<String>, String> {
    match text(value)?.as_str() {
        "off" => Ok(None),
        path if Route::new("*", path, "").is_ok() => Ok(Some(path.to_owned())),
        _ => Err(not(value, "a path such as \"/metrics\", or \"off\"")),
    }
}

pub(super) fn function_name(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    if !microfaas_abi::is_function_name(&name) {
        return Err(format!("is {name:?}, which is not a function name: {FUNCTION_NAME}"));
    }
    Ok(name)
}

pub(super) fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let expected = "a list of strings";
    let list = value.as_array().ok_or_else(|| not(value, expected))?;
    list.iter()
        .map(|item| item.get_ref().as_str().map(str::to_owned))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("has something else than strings, expected {expected}"))
}

/// A list of values of one kind.
pub(super) fn list<T>(
    value: &DeValue<'_>,
    item: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let list = value.as_array().ok_or_else(|| not(value, "a list"))?;
    let items = list.iter().map(|value| item(value.get_ref()));
    items.collect::<Result<_, _>>().map_err(|problem| format!("has a value that {problem}"))
}

/// Permissions of a file, in octal digits.
pub(super) fn mode(value: &DeValue<'_>) -> Result<u32, String> {
    let mode = value.as_str().and_then(|text| u32::from_str_radix(text, 8).ok());
    mode.filter(|mode| *mode <= 0o777).ok_or_else(|| not(value, "permissions such as \"0660\""))
}

/// A whole number from `min` to `max`.
pub(super) fn count<T: TryFrom<u64>>(value: &DeValue<'_>, min: u64, max: u64) -> Result<T, String> {
    let Some(number) = value.as_integer() else {
        return Err(format!("is {}, expected a number from {min} to {max}", kind(value)));
    };
    u64::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|n| (min..=max).contains(n))
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| format!("is {number}, allowed are {min} to {max}"))
}

/// Bytes as a number, or as text with a binary unit.
pub(super) fn bytes<T: TryFrom<u64>>(
    value: &DeValue<'_>,
    min: u64,
    max: u64,
    step: u64,
) -> Result<T, String> {
    let parsed = match value {
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
        DeValue::String(text) => parse_bytes(text).map(i128::from),
        _ => None,
    };
    let bytes = parsed.ok_or_else(|| not(value, "bytes such as 65536 or \"16MiB\" (KiB, MiB, GiB)"))?;
    let in_range = u64::try_from(bytes).ok().filter(|n| (min..=max).contains(n));
    let bytes = in_range.ok_or_else(|| format!("is {bytes} bytes, allowed are {min} to {max}"))?;
    if !bytes.is_multiple_of(step) {
        return Err(format!("is {bytes} bytes, allowed are multiples of {step} from {min} to {max}"));
    }
    T::try_from(bytes).map_err(|_| format!("is {bytes} bytes, which this machine cannot address"))
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

pub(super) fn duration(value: &DeValue<'_>, min: Duration, max: Duration) -> Result<Duration, String> {
    let parsed = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
    let duration = parsed.ok_or_else(|| not(value, "a time such as \"500ms\" or \"2s\""))?;
    if !(min..=max).contains(&duration) {
        let [is, min, max] = [duration, min, max].map(humantime::format_duration);
        return Err(format!("is {is}, allowed are {min} to {max}"));
    }
    Ok(duration)
}

/// What happens at the end of a quantum.
pub(super) fn policy(value: &DeValue<'_>) -> Result<Policy, String> {
    match value.as_str() {
        Some("share") => Ok(Policy::Share),
        Some("kill") => Ok(Policy::Kill),
        _ => Err(not(value, "\"share\" or \"kill\"")),
    }
}

/// When a module is loaded.
pub(super) fn loading(value: &DeValue<'_>) -> Result<Loading, String> {
    let all = [Loading::Start, Loading::FirstCall];
    let named = all.into_iter().find(|when| value.as_str() == Some(when.name()));
    named.ok_or_else(|| not(value, "\"start\" or \"first-call\""))
}

/// `HOST:PORT`.
pub(super) fn address(value: &DeValue<'_>) -> Result<String, String> {
    let expected = "an address and port such as \"127.0.0.1:8080\"";
    let text = value.as_str().ok_or_else(|| not(value, expected))?;
    check_address(text).ok_or_else(|| not(value, expected))
}

/// The text, if it has the form `HOST:PORT`.
pub(crate) fn check_address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let is_host = !host.is_empty() && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    (is_host && port.parse::<u16>().is_ok()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_units() {
        let all =
            [("0", 0), ("17", 17), ("17B", 17), ("64KiB", 65_536), ("16 MiB", 16 << 20), ("1GiB", 1 << 30)];
        for (text, bytes) in all {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5MiB", "1MB", "1 k", "99999999999GiB", "1KiB2"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:8080", "localhost:0", "[::1]:80", "0.0.0.0:65535"] {
            assert!(check_address(text).is_some(), "{text}");
        }
        for text in ["8080", ":8080", "127.0.0.1", "127.0.0.1:65536", "::1:80", "h:"] {
            assert!(check_address(text).is_none(), "{text}");
        }
    }
}
