//! Detects the type of a sample from its content.
//!
//! The names come from MalQuery's filters, where they are lowercase. In MalQuery's replies, `PE32`
//! is uppercase, so `PE64` is uppercase here. Content of any other type is `data`.

use std::io::{self, Read, Seek};

use file_format::FileFormat;
use memchr::memmem;

use super::source::Opened;

/// The maximum number of bytes read, except in compound documents, whose directory can be anywhere.
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
        // A Mach-O file for several processors has their count here. A Java class has its major
        // version, which is at least 45.
        [0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, count, ..] if *count < 45 => "macho",
        [0xca, 0xfe, 0xba, 0xbe, ..] => "cjava",
        [b'P', b'K', 3, 4, ..] => zip(prefix),
        // A code object follows a header of 8, 12 or 16 bytes.
        [_, _, b'\r', b'\n', ..] if [8, 12, 16].iter().any(|at| byte(*at) & 0x7f == b'c') => {
            "pythonc"
        }
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

/// Detects the type from the entry names in the prefix, because the central directory is at the end
/// of the file.
fn zip(prefix: &[u8]) -> &'static str {
    for at in memmem::find_iter(prefix, b"PK\x03\x04") {
        let name = prefix.get(at + 30..).unwrap_or_default();
        for (start, word) in [
            ("word/", "docx"),
            ("xl/", "xlsx"),
            ("ppt/", "pptx"),
            ("META-INF/MANIFEST.MF", "java.arc"),
        ] {
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
        // Some programs omit the class id.
        _ if memmem::find(prefix, b"HWP Document File").is_some() => "hwp",
        _ if names("WordDocument") => "doc",
        _ if names("Workbook") => "xls",
        _ if names("PowerPoint Document") => "ppt",
        _ => "cdfv2",
    }
}

/// Returns the kind of text. Returns `None` for PDF, RTF and content that is not text.
fn text(prefix: &[u8]) -> Option<&'static str> {
    let content = prefix
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(prefix)
        .trim_ascii_start();
    let begins = |with: &str| {
        content
            .get(..with.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    if begins("%PDF-") || begins("{\\rtf") || !is_text(prefix) {
        return None;
    }
    let first = content
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let runs = |program: &str| {
        first.starts_with(b"#!") && memmem::find(first, program.as_bytes()).is_some()
    };
    const HEADERS: [&str; 7] = [
        "Received:",
        "Return-Path:",
        "Delivered-To:",
        "Message-ID:",
        "MIME-Version:",
        "From: ",
        "X-Mailer:",
    ];
    Some(if runs("python") {
        "python"
    } else if runs("perl") {
        "perl"
    } else if content.starts_with(b"<") && is_html(content) {
        "html"
    } else if HEADERS.iter().any(|header| begins(header)) {
        "email"
    } else {
        "text"
    })
}

/// Returns whether the first 1,024 bytes contain an HTML doctype or the start of an `html` element.
fn is_html(content: &[u8]) -> bool {
    let start = content[..content.len().min(1024)].to_ascii_lowercase();
    ["<!doctype html", "<html"]
        .iter()
        .any(|tag| memmem::find(&start, tag.as_bytes()).is_some())
}

/// Returns whether the content is text: UTF-8, UTF-16 with a byte order mark, or Latin-1, without
/// ASCII control characters other than whitespace, bell, backspace and escape. Empty content is not
/// text.
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
            // The prefix ends in the middle of a character.
            Err(error) if error.error_len().is_none() => true,
            Err(_) => !prefix.iter().any(|byte| (0x80..0xa0).contains(byte)),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::service::corpus::source::Source;

    fn of(bytes: &[u8]) -> &'static str {
        detect(&mut Source::Memory(bytes.into()).open().unwrap()).unwrap()
    }

    fn program(magic: u16) -> Vec<u8> {
        let mut bytes = b"MZ".to_vec();
        bytes.resize(60, 0);
        bytes.extend([0x80, 0, 0, 0]);
        bytes.resize(0x80, 0);
        bytes.extend(b"PE\0\0");
        bytes.resize(0x80 + 24, 0);
        bytes.extend(magic.to_le_bytes());
        bytes
    }

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in names {
            bytes.extend(b"PK\x03\x04");
            bytes.extend([0; 22]);
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend([0, 0]);
            bytes.extend(name.as_bytes());
            bytes.extend(b"content");
        }
        bytes
    }

    /// Returns a compound document whose directory is in sector `at`.
    fn document(class: u32, name: &str, at: usize) -> Vec<u8> {
        let mut bytes = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
        bytes.resize(26, 0);
        bytes.extend([3, 0]);
        bytes.resize(48, 0);
        bytes.extend((at as u32).to_le_bytes());
        bytes.resize(600, 0);
        bytes.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
        bytes.resize(512 * (1 + at) + 80, 0);
        bytes.extend(class.to_le_bytes());
        bytes.extend([0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46]);
        bytes.resize(bytes.len() + 512, 0);
        bytes
    }

    #[test]
    fn content_decides() {
        let mut powerpoint = document(0, "", 0);
        let class = [
            0x10, 0x8d, 0x81, 0x64, 0x9b, 0x4f, 0xcf, 0x11, 0x86, 0xea, 0, 0xaa, 0, 0xb9, 0x29,
            0xe8,
        ];
        let at = 512 + 80;
        powerpoint[at..at + class.len()].copy_from_slice(&class);
        let mut hwp = document(0, "", 3);
        hwp[700..717].copy_from_slice(b"HWP Document File");
        for (bytes, word) in [
            (program(0x10b), "PE32"),
            (program(0x20b), "PE64"),
            (program(0), "data"),
            (b"MZ\0".to_vec(), "data"),
            (
                archive(&["[Content_Types].xml", "_rels/.rels", "word/document.xml"]),
                "docx",
            ),
            (
                archive(&["[Content_Types].xml", "_rels/.rels", "xl/workbook.xml"]),
                "xlsx",
            ),
            (
                archive(&["[Content_Types].xml", "_rels/.rels", "ppt/presentation.xml"]),
                "pptx",
            ),
            (
                archive(&["META-INF/", "META-INF/MANIFEST.MF", "A.class"]),
                "java.arc",
            ),
            (archive(&["readme"]), "data"),
            (document(0x0002_0906, "", 0), "doc"),
            (document(0x0002_0820, "", 500), "xls"),
            (document(0, "", 500), "cdfv2"),
            (document(0, "WordDocument", 3), "doc"),
            (document(0, "Workbook", 3), "xls"),
            (document(0, "PowerPoint Document", 3), "ppt"),
            // Only the class id identifies PowerPoint.
            (powerpoint, "ppt"),
            (hwp, "hwp"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec(), "cdfv2"),
        ] {
            assert_eq!(of(&bytes), word);
        }
        for (bytes, word) in [
            (&b"\x7fELF\x01\x01\x01"[..], "elf32"),
            (b"\x7fELF\x02\x01\x01", "elf64"),
            (b"\xcf\xfa\xed\xfe\x07\x00\x00\x01", "macho"),
            (b"\xca\xfe\xba\xbe\x00\x00\x00\x02", "macho"),
            (b"\xca\xfe\xba\xbe\x00\x00\x00\x2c", "macho"),
            (b"\xca\xfe\xba\xbe\x00\x00\x00\x2d", "cjava"),
            (b"\xca\xfe\xba\xbe\x00\x00\x00\x34", "cjava"),
            (b"\xca\xfe\xba\xbe\x00\x03\x00\x2d", "cjava"),
            (b"%PDF-1.7\n", "pdf"),
            (b"{\\rtf1\\ansi}", "rtf"),
            (b"CWS\x09\0\0\0\0", "swf"),
            (b"\xd4\xc3\xb2\xa1\x02\0\x04\0", "pcap"),
            (b"dex\n035\0", "dalvik"),
            (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0\x46", "lnk"),
            (b"\xcb\x0d\r\n\0\0\0\0\0\0\0\0\0\0\0\0\xe3", "pythonc"),
            (b"\x03\xf3\r\n\0\0\0\0c", "pythonc"),
            (b"\x03\xf3\r\n\0\0\0\0\0\0\0\0c", "pythonc"),
            (b"\x03\xf3\r\n\0\0\0\0d\0\0\0d\0\0\0d", "data"),
            (b"HWP Document File V3.00 \x1a\x01\x02", "hwp"),
            (b"#!/usr/bin/env python3\nprint(1)", "python"),
            (b"#! /bin/perl -w\n", "perl"),
            (b"#!/bin/sh\npython", "text"),
            (b"\xef\xbb\xbf\n <!DocType HTML>", "html"),
            (b"<?xml version='1.0'?>\n<!-- x -->\n<html>", "html"),
            (b"<svg>", "text"),
            (b"Received: from a by b\nFrom: c\n", "email"),
            (b"plain\ttext\r\n", "text"),
            (b"\xff\xfep\0s\0", "text"),
            (b"\xfe\xff\0p\0s", "text"),
            (b"\xff\xfe\x00\xd8p\0", "data"),
            (b"caf\xe9", "text"),
            (b"caf\x81\xe9", "data"),
            (b"a\0b", "data"),
            (b"", "data"),
        ] {
            assert_eq!(of(bytes), word, "{}", bytes.escape_ascii());
        }
        // The second prefix ends in the middle of a character.
        for letter in ["\u{fc}", "\u{c0}"] {
            let long = letter.repeat(PREFIX as usize);
            assert_eq!(of(long.as_bytes()), "text");
            assert_eq!(of(format!("x{long}").as_bytes()), "text");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_type(
            start in prop::sample::select(vec![
                &b""[..], b"MZ", b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\xff\xfe", b"\xfe\xff",
                b"\x7fELF", b"\xca\xfe\xba\xbe", b"<",
            ]),
            rest in prop::collection::vec(any::<u8>(), 0..700),
        ) {
            prop_assert!(!of(&[start, &rest].concat()).is_empty());
        }
    }
}
