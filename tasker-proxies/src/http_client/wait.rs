//! How long a provider asks to wait, from the headers of its answer. Pure.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

/// Milliseconds to wait: `retry-after-ms`, `Retry-After` in seconds or as a date, else of an answer 429 the
/// `x-ratelimit-reset-*` of each limit that is used up.
pub(super) fn asked_ms(status: StatusCode, headers: &HeaderMap, now_ms: i64) -> Option<u64> {
    let limited = status == StatusCode::TOO_MANY_REQUESTS;
    let reset = || limited.then(|| reset_ms(headers)).flatten();
    retry_after_ms(headers, now_ms).or_else(reset)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn retry_after_ms(headers: &HeaderMap, now_ms: i64) -> Option<u64> {
    let number = |text: &str| {
        let number: f64 = text.trim().parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    if let Some(millis) = text(headers, "retry-after-ms").and_then(number) {
        return Some(millis.ceil() as u64);
    }
    let value = text(headers, "retry-after")?;
    if let Some(seconds) = number(value) {
        return Some((seconds * 1_000.0).ceil() as u64);
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(value)
        .ok()?;
    Some(u64::try_from(date.as_millisecond().saturating_sub(now_ms)).unwrap_or(0))
}

/// When the limits that were passed are open again: `x-ratelimit-reset-requests: 6m0s`, of those whose
/// `x-ratelimit-remaining-…` is 0.
fn reset_ms(headers: &HeaderMap) -> Option<u64> {
    let kinds = ["requests", "tokens"].into_iter();
    kinds
        .filter(|kind| text(headers, &format!("x-ratelimit-remaining-{kind}")) == Some("0"))
        .filter_map(|kind| duration_ms(text(headers, &format!("x-ratelimit-reset-{kind}"))?))
        .max()
}

fn duration_ms(text: &str) -> Option<u64> {
    let mut millis = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let number: f64 = number.parse().ok()?;
        millis += number
            * match unit {
                "ms" => 1.0,
                "s" => 1_000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                _ => return None,
            };
        rest = after;
    }
    (!text.is_empty()).then_some(millis.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_read_in_every_form() {
        let now = 1_445_412_470_000; // 2015-10-21T07:27:50Z
        for (name, value, expected) in [
            ("retry-after", "2", Some(2_000)),
            ("retry-after", "0.25", Some(250)),
            ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT", Some(10_000)),
            ("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("retry-after-ms", "1500", Some(1_500)),
            ("retry-after", "soon", None),
            ("retry-after", "-1", None),
            ("x", "1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(
                asked_ms(StatusCode::SERVICE_UNAVAILABLE, &headers, now),
                expected,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("1s", Some(1_000)),
            ("6m0s", Some(360_000)),
            ("20ms", Some(20)),
            ("1h2m3.5s", Some(3_723_500)),
            ("", None),
            ("5", None),
            ("x", None),
        ] {
            assert_eq!(duration_ms(text), millis, "{text}");
        }
    }
}
