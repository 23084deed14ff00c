use proptest::prelude::*;

use super::*;

#[test]
fn only_real_days_in_two_formats() {
    for day in [
        "2020/06/09",
        "2024/02/29",
        "2000/02/29",
        "0000/01/01",
        "9999/12/31",
    ] {
        assert_eq!(day.parse::<Date>().unwrap().to_string(), day);
    }
    for day in [
        "2023/02/29",
        "1900/02/29",
        "2020/13/01",
        "2020/00/01",
        "2020/01/00",
        "2020/04/31",
    ] {
        let message = day.parse::<Date>().unwrap_err().to_string();
        assert_eq!(
            message, "not a date: the year, the month or the day is out of range",
            "{day}"
        );
    }
    for text in [
        "",
        "2020/6/9",
        "2020-06/09",
        "2020/06-09",
        "2020.06.09",
        "20/06/09",
        "2020/06/09 ",
        "2020/06/0９",
        "+202/06/09",
        "2020/06/09T00",
    ] {
        let message = text.parse::<Date>().unwrap_err().to_string();
        assert_eq!(
            message, "not a date: expected YYYY/MM/DD or YYYY-MM-DD",
            "{text}"
        );
    }
}

#[test]
fn days_before_stop_at_the_first() {
    let date = Date::new(2024, 3, 1).unwrap();
    assert_eq!(date.days_before(0), date);
    assert_eq!(date.days_before(1).to_string(), "2024/02/29");
    for days in [739_311, 739_312, 4_000_000, u32::MAX] {
        assert_eq!(date.days_before(days).to_string(), "0000/01/01", "{days}");
    }
    assert_eq!(date.days_before(739_310).to_string(), "0000/01/02");
}

#[test]
fn a_time_is_on_its_day() {
    for (millis, day) in [
        (951_782_399_999, "2000/02/28"),
        (951_782_400_000, "2000/02/29"),
        (253_402_214_399_999, "9999/12/30"),
        (253_402_214_400_000, "9999/12/31"),
        (253_402_300_800_000, "9999/12/31"),
    ] {
        let date = Date::of(Timestamp::from_millis(millis));
        assert_eq!(date.to_string(), day, "{millis}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,12}") {
        if let Ok(date) = text.parse::<Date>() {
            prop_assert_eq!(date.to_string(), text.replace('-', "/"));
        }
    }

    #[test]
    fn every_day_survives_text(year in 0u16..=9999, month in 1u8..=12, day in 1u8..=28) {
        let date = Date::new(year, month, day).unwrap();
        prop_assert_eq!(date.to_string().parse::<Date>().unwrap(), date);
        prop_assert_eq!(date.to_string().replace('/', "-").parse::<Date>().unwrap(), date);
        prop_assert_eq!((date.year(), date.month(), date.day()), (year, month, day));
    }
}
