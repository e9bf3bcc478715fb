//! Time stamps in the form `2006-01-02T15:04:05.999999Z`: UTC, microseconds without trailing zeros.

use std::time::Duration;

const SECONDS_PER_DAY: u64 = 86_400;

/// The stamp of a time since 1970.
pub(super) fn format(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / SECONDS_PER_DAY);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut stamp = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let micros = since_epoch.subsec_micros();
    if micros > 0 {
        stamp.push_str(format!(".{micros:06}").trim_end_matches('0'));
    }
    stamp.push('Z');
    stamp
}

/// The stamp in the name of a file that was put aside: `2006-01-02T15-04-05.000`.
pub(super) fn for_file(since_epoch: Duration) -> String {
    let whole = format(Duration::from_secs(since_epoch.as_secs()));
    let stamp = whole.trim_end_matches('Z').replace(':', "-");
    format!("{stamp}.{:03}", since_epoch.subsec_millis())
}

/// Whether a text has the form of such a stamp.
pub(super) fn is_for_file(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00-00-00.000";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == *form,
        })
}

/// Year, month and day of a day since 1970 in the Gregorian calendar. Years are counted from
/// March, so that the leap day comes last, in eras of 400 years.
fn date(days_since_epoch: u64) -> (u64, u64, u64) {
    const DAYS_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days_since_epoch + DAYS_FROM_MARCH_OF_YEAR_0;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_the_calendar() {
        for (seconds, micros, expected) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_800, 10, "2000-03-01T00:00:00.00001Z"),
            (1_709_251_199, 999_999, "2024-02-29T23:59:59.999999Z"),
            (1_735_689_599, 500_000, "2024-12-31T23:59:59.5Z"),
            (1_735_689_600, 0, "2025-01-01T00:00:00Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] {
            let time = Duration::from_secs(seconds) + Duration::from_micros(micros);
            assert_eq!(format(time), expected);
        }
    }

    #[test]
    fn stamps_of_files_are_recognised() {
        let stamp = for_file(Duration::from_millis(951_868_800_007));
        assert_eq!(stamp, "2000-03-01T00-00-00.007");
        assert!(is_for_file(&stamp));
        assert!(!is_for_file("2000-03-01T00:00:00.007") && !is_for_file(&stamp[1..]));
    }
}
