//! The kinds of value a flag can have, read as Go's `flag` package and etcd read them.

use std::time::Duration;

use super::table::Kind;
use crate::config::{Cluster, Urls};

/// The gates that etcd's server knows in the 3.6 and 3.7 lines.
const FEATURE_GATES: [&str; 11] = [
    "AllAlpha",
    "AllBeta",
    "CompactHashCheck",
    "FastLeaseKeepAlive",
    "InitialCorruptCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "PriorityRequest",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
];

const PARSE: &str = "parse error";
const RANGE: &str = "value out of range";

/// The text in the form that is kept, or Go's words for what is wrong with it.
pub(super) fn normal_form(kind: Kind, text: &str) -> Result<String, String> {
    match kind {
        Kind::Bool => return Ok(parse_bool(text)?.to_string()),
        Kind::Int => drop(parse_int(text)?),
        Kind::Uint => drop(parse_uint(text, u64::MAX)?),
        Kind::Uint32 => drop(parse_uint(text, u32::MAX.into())?),
        Kind::Duration => drop(parse_duration(text)?),
        Kind::Retention if text.parse::<u32>().is_ok() => {}
        Kind::Retention => drop(parse_duration(text)?),
        Kind::Text | Kind::Ignored => {}
        Kind::Urls => drop(Urls::parse(text)?),
        Kind::OptionalUrls if text.is_empty() => {}
        Kind::OptionalUrls => drop(Urls::parse(text)?),
        Kind::Cluster if text.is_empty() => {}
        Kind::Cluster => drop(Cluster::parse(text)?),
        Kind::OneOf(choices) if choices.contains(&text) => {}
        Kind::OneOf(choices) => {
            let named: Vec<&str> =
                choices.iter().copied().filter(|text| !text.is_empty()).collect();
            return Err(format!("invalid value, must be one of {}", named.join(", ")));
        }
        Kind::Gates => check_gates(text)?,
    }
    Ok(text.to_owned())
}

/// Go's spellings of a boolean.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(PARSE.to_owned()),
    }
}

pub(super) fn parse_int(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error: std::num::ParseIntError| number_error(error.kind()))
}

pub(super) fn parse_uint(text: &str, max: u64) -> Result<u64, String> {
    let number: u64 =
        text.parse().map_err(|error: std::num::ParseIntError| number_error(error.kind()))?;
    if number > max { Err(RANGE.to_owned()) } else { Ok(number) }
}

fn number_error(kind: &std::num::IntErrorKind) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    if matches!(kind, PosOverflow | NegOverflow) { RANGE } else { PARSE }.to_owned()
}

/// Go's notation for a duration: `1h30m`, `1.5s`, `300ms`, or a bare `0`. Never negative.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(PARSE.to_owned());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(PARSE)?;
        let number: f64 = rest[..digits].parse().map_err(|_| PARSE)?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| digits + at);
        let seconds = number * unit_seconds(&rest[digits..unit_end])?;
        total += Duration::try_from_secs_f64(seconds).map_err(|_| RANGE)?;
        rest = &rest[unit_end..];
    }
    Ok(total)
}

fn unit_seconds(unit: &str) -> Result<f64, String> {
    Ok(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(PARSE.to_owned()),
    })
}

/// The gates of a checked text, in order.
pub fn parse_gates(text: &str) -> Vec<(&str, bool)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.filter_map(|(name, on)| Some((name.trim(), parse_bool(on.trim()).ok()?))).collect()
}

fn check_gates(text: &str) -> Result<(), String> {
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| format!("missing bool value for {pair}"))?;
        if !FEATURE_GATES.contains(&name.trim()) {
            return Err(format!("unrecognized feature gate: {name}"));
        }
        parse_bool(value.trim())
            .map_err(|_| format!("invalid value of {name}={value}, err: invalid syntax"))?;
    }
    Ok(())
}
