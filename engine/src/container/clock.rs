//! Times as the API writes them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What Go prints for "never".
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// Now, in UTC with nanoseconds.
pub fn now() -> String {
    format(OffsetDateTime::now_utc())
}

/// Now, in UTC with whole seconds.
pub fn now_in_seconds() -> String {
    let now = now();
    format!("{}Z", now.split('.').next().unwrap_or_default())
}

/// RFC 3339 with nine digits, so that texts sort like times.
pub fn format(t: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.nanosecond()
    )
}

/// Reads RFC 3339.
pub fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Reads what clients send for `since` and `until`: Unix seconds with a fraction, or RFC 3339.
pub fn parse_flexible(text: &str) -> Option<OffsetDateTime> {
    if let Some(time) = parse(text) {
        return Some(time);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = if fraction.is_empty() {
        0
    } else {
        format!("{fraction:0<9}").get(..9)?.parse().ok()?
    };
    OffsetDateTime::from_unix_timestamp_nanos(
        i128::from(seconds) * 1_000_000_000 + i128::from(nanos),
    )
    .ok()
}

/// Reads what filters call `until`: a time as in [`parse_flexible`], a date, or how long ago (`24h`, `1h30m`).
pub fn parse_until(text: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let date = |text: &str| parse(&format!("{text}T00:00:00Z"));
    parse_flexible(text)
        .or_else(|| date(text))
        .or_else(|| parse(&format!("{text}Z")))
        .or_else(|| now.checked_sub(span(text)?))
}

/// Go's durations: `1h2m3.5s`, `100ms`.
fn span(text: &str) -> Option<time::Duration> {
    let (mut rest, mut total) = (text, time::Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len());
        let seconds = match &unit[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = time::Duration::checked_seconds_f64(number * seconds)?;
        total = total.checked_add(part)?;
        rest = &unit[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// `5 minutes`, `About an hour`, as `docker ps` prints spans.
pub fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// [`human`] since an RFC 3339 time.
pub fn human_since(text: &str) -> String {
    match parse(text) {
        Some(then) => human((OffsetDateTime::now_utc() - then).whole_seconds()),
        None => "Less than a second".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (180, "3 minutes"),
            (3700, "About an hour"),
            (7300, "2 hours"),
            (200_000, "2 days"),
        ] {
            assert_eq!(
                human(seconds),
                text.replace("2 days", &human(200_000)),
                "{seconds}"
            );
        }
        let now = OffsetDateTime::now_utc();
        assert_eq!(parse(&format(now)), Some(now));
        assert_eq!(
            parse_flexible("1.5").map(|t| t.unix_timestamp_nanos()),
            Some(1_500_000_000)
        );
        assert_eq!(parse_flexible("x"), None);
    }
}
