use proptest::prelude::*;

use super::*;

#[test]
fn bytes_and_units_are_taken_as_written() {
    for text in [
        "0",
        "128000",
        "1.3 KB",
        "1.3KB",
        "8mb",
        "8 Mb",
        "2GB",
        "0.5gb",
        "18446744073709551615",
    ] {
        assert_eq!(text.parse::<FileSize>().unwrap().as_str(), text);
    }
}

#[test]
fn nonsense_is_refused() {
    let message = |text: &str| text.parse::<FileSize>().unwrap_err().to_string();
    for text in [
        "", " ", "-1", "+1", "1 ", "1  KB", "KB", ".5 KB", "5. KB", "1.2.3 KB", "1 TB", "1k",
        "1e3", "１", "1 TiB", "1 Ki", "KiB", "1 i", "1mi b",
    ] {
        assert_eq!(
            message(text),
            "not a file size: expected a number of bytes, such as 128000, or a number and a unit (KB, MB, GB, KiB, MiB or GiB), such as 1.3 KB or 8mb",
            "{text:?}"
        );
    }
    assert_eq!(
        message("1.5"),
        "not a file size: a size in bytes must be a whole number"
    );
    assert_eq!(
        message("99999999999999999999"),
        "not a file size: the size does not fit in 64 bits"
    );
    assert_eq!(
        message("99999999999999 GB"),
        "not a file size: the size does not fit in 64 bits"
    );
}

#[test]
fn only_sizes_without_doubt_compare() {
    let exceeds = |a: &str, b: &str| {
        a.parse::<FileSize>()
            .unwrap()
            .surely_exceeds(&b.parse::<FileSize>().unwrap())
    };
    assert!(exceeds("8mb", "1 MB"));
    assert!(exceeds("1 MB", "900 KB"));
    assert!(exceeds("2 KB", "1999"));
    assert!(exceeds("1.3004 KB", "1.3003 KB"));
    assert!(exceeds("8796093022208.001 KB", "8796093022208 KB"));
    assert!(!exceeds("1 KB", "1010"));
    assert!(!exceeds("1 KB", "1 KB"));
    assert!(!exceeds("1", "1 GB"));
    assert!(exceeds("9007199254740993", "9007199254740992"));
}

#[test]
fn binary_units_become_bytes() {
    for (text, bytes) in [
        ("1MiB", 1 << 20),
        ("1 mib", 1 << 20),
        ("1.5KiB", 1536),
        ("1.3 KiB", 1331),
        ("2GIB", 2 << 30),
        ("0.0 KiB", 0),
        ("8796093022208.0009765625 KiB", (1 << 53) + 1),
        ("0.000000000931322574615478515625 GiB", 1),
    ] {
        assert_eq!(
            text.parse::<FileSize>().unwrap(),
            FileSize::from(bytes),
            "{text}"
        );
    }
}

#[test]
fn the_largest_size_fits_64_bits() {
    assert!("18446744073709551616".parse::<FileSize>().is_err());
    assert!("18446744073.7 GB".parse::<FileSize>().is_ok());
    assert!("18446744074 GB".parse::<FileSize>().is_err());
    assert!("17179869183.9 GiB".parse::<FileSize>().is_ok());
    assert!("17179869184 GiB".parse::<FileSize>().is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[0-9. kKmMgGiIbB]{0,12}|.{0,12}") {
        if let Ok(size) = text.parse::<FileSize>() {
            prop_assert!(size.as_str() == text || text.to_ascii_lowercase().ends_with("ib"));
            prop_assert_eq!(&size.as_str().parse::<FileSize>().unwrap(), &size);
            prop_assert!(!size.surely_exceeds(&size));
        }
    }
}
