#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| malquery_fuzz::values(data));
