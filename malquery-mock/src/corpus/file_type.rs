//! The type of a sample by its content, in the service's words.
//!
//! `PE32` and `PE64` are in capitals, as replies of the service show the first; the other words are as in its list
//! of filters. Content that the list has no word for is `text` if it can be read as such, and else `data`, which
//! are the words of `file`.

use std::io::{self, Read, Seek};

use file_format::FileFormat;
use memchr::memmem;

use super::source::Opened;

/// How much of a sample is looked at. Of old Office documents the directory is, too, wherever it is.
const PREFIX: u64 = 64 * 1024;

pub(super) fn detect(opened: &mut Opened) -> io::Result<&'static str> {
    let mut prefix = Vec::new();
    opened.rewind()?;
    opened.take(PREFIX).read_to_end(&mut prefix)?;
    if prefix.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        opened.rewind()?;
        return Ok(compound(&prefix, FileFormat::from_reader(opened)?));
    }
    Ok(of_prefix(&prefix))
}

fn of_prefix(prefix: &[u8]) -> &'static str {
    let byte = |at: usize| prefix.get(at).copied().unwrap_or_default();
    if let Some(word) = text(prefix) {
        return word;
    }
    match prefix {
        [0x7f, b'E', b'L', b'F', 1, ..] => "elf32",
        [0x7f, b'E', b'L', b'F', 2, ..] => "elf64",
        [b'M', b'Z', ..] => portable_executable(prefix),
        // A Mach-O for several processors says how many, a class the version of its format, from 45.
        [0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, count, ..] if *count < 45 => "macho",
        [0xca, 0xfe, 0xba, 0xbe, ..] => "cjava",
        [b'P', b'K', 3, 4, ..] => zip(prefix),
        // After a header of 8, 12 or 16 bytes comes a code object.
        [_, _, b'\r', b'\n', ..] if [8, 12, 16].iter().any(|at| byte(*at) & 0x7f == b'c') => "pythonc",
        _ if prefix.starts_with(b"HWP Document File") => "hwp",
        _ => match FileFormat::from_bytes(prefix) {
            FileFormat::DalvikExecutable | FileFormat::OptimizedDalvikExecutable => "dalvik",
            FileFormat::MachO => "macho",
            FileFormat::PcapDump | FileFormat::PcapNextGenerationDump => "pcap",
            FileFormat::PortableDocumentFormat => "pdf",
            FileFormat::RichTextFormat => "rtf",
            FileFormat::SmallWebFormat => "swf",
            FileFormat::WindowsShortcut => "lnk",
            _ => "data",
        },
    }
}

fn portable_executable(prefix: &[u8]) -> &'static str {
    let header = || {
        let at: [u8; 4] = prefix.get(60..64)?.try_into().ok()?;
        let header = prefix.get(usize::try_from(u32::from_le_bytes(at)).ok()?..)?;
        header.starts_with(b"PE\0\0").then(|| header.get(24..26))?
    };
    match header() {
        Some([0x0b, 0x01]) => "PE32",
        Some([0x0b, 0x02]) => "PE64",
        _ => "data",
    }
}

/// By the names of the first files in it: the directory at its end is not read.
fn zip(prefix: &[u8]) -> &'static str {
    for at in memmem::find_iter(prefix, b"PK\x03\x04") {
        let name = prefix.get(at + 30..).unwrap_or_default();
        for (start, word) in
            [("word/", "docx"), ("xl/", "xlsx"), ("ppt/", "pptx"), ("META-INF/MANIFEST.MF", "java.arc")]
        {
            if name.starts_with(start.as_bytes()) {
                return word;
            }
        }
    }
    "data"
}

fn compound(prefix: &[u8], format: FileFormat) -> &'static str {
    let names = |name: &str| {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        memmem::find(prefix, &wide).is_some()
    };
    match format {
        FileFormat::MicrosoftWordDocument => "doc",
        FileFormat::MicrosoftExcelSpreadsheet => "xls",
        FileFormat::MicrosoftPowerpointPresentation => "ppt",
        // Not every writer says what it wrote.
        _ if memmem::find(prefix, b"HWP Document File").is_some() => "hwp",
        _ if names("WordDocument") => "doc",
        _ if names("Workbook") => "xls",
        _ if names("PowerPoint Document") => "ppt",
        _ => "cdfv2",
    }
}

/// What kind of text it is, if it is one.
fn text(prefix: &[u8]) -> Option<&'static str> {
    let content = prefix.strip_prefix(b"\xef\xbb\xbf").unwrap_or(prefix).trim_ascii_start();
    let begins = |with: &str| {
        content.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    if begins("%PDF-") || begins("{\\rtf") || !is_text(prefix) {
        return None;
    }
    let first = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let runs = |program: &str| first.starts_with(b"#!") && memmem::find(first, program.as_bytes()).is_some();
    const HEADERS: [&str; 7] =
        ["Received:", "Return-Path:", "Delivered-To:", "Message-ID:", "MIME-Version:", "From: ", "X-Mailer:"];
    Some(if runs("python") {
        "python"
    } else if runs("perl") {
        "perl"
    } else if begins("<!doctype html") || begins("<html") {
        "html"
    } else if HEADERS.iter().any(|header| begins(header)) {
        "email"
    } else {
        "text"
    })
}

/// Whether it is UTF-8, UTF-16 with a mark, or one byte a character, without control characters but those that
/// move the cursor.
fn is_text(prefix: &[u8]) -> bool {
    let plain = |c: char| !c.is_ascii_control() || matches!(c, '\x07'..='\r' | '\x1b');
    let wide = |unit: fn([u8; 2]) -> u16| {
        let units = prefix.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).all(|c| c.is_ok_and(plain))
    };
    match prefix {
        [] => false,
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ if !prefix.iter().all(|&byte| plain(char::from(byte))) => false,
        _ => match std::str::from_utf8(prefix) {
            Ok(_) => true,
            // The last character goes on behind the prefix.
            Err(error) if error.error_len().is_none() => true,
            Err(_) => !prefix.iter().any(|byte| (0x80..0xa0).contains(byte)),
        },
    }
}
