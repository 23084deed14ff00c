use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::ParseError;
use super::lenient::text_item;

/// The type of a file in the service's words, such as `pe32` or `pdf`.
///
/// The list is open, and the case of a word varies: replies say `PE32`, the list of filters says
/// `pe32`. So this type keeps the word as it was written, compares without regard to case, and has
/// constants as `http::Method` does.
///
/// ```
/// use malquery_proto::types::FileType;
///
/// let received: FileType = "PE32".parse()?;
/// assert_eq!(received, FileType::PE32);
/// assert_eq!(received.as_str(), "PE32");
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Clone)]
pub struct FileType(Word);

/// A known word is an index, so that 100,000 of them take no allocation.
#[derive(Clone)]
enum Word {
    /// Twice the index, and one more for capitals: a single small variant keeps the type at two
    /// words.
    Known(u8),
    Other(Box<str>),
}

macro_rules! file_types {
    ($($(#[$doc:meta])* $name:ident = $lower:literal $upper:literal,)+) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Index { $($name),+ }

        const WORDS: &[[&str; 2]] = &[$([$lower, $upper]),+];

        impl FileType {
            $( $(#[$doc])* pub const $name: Self = Self(Word::Known(2 * Index::$name as u8)); )+
        }

        fn word(text: &str) -> Option<Word> {
            Some(match text {
                $(
                    $lower => Word::Known(2 * Index::$name as u8),
                    $upper => Word::Known(2 * Index::$name as u8 + 1),
                )+
                _ => return None,
            })
        }
    };
}

file_types! {
    /// Compound document.
    CDF = "cdf" "CDF",
    /// Compound document, version 2 (old Office files).
    CDFV2 = "cdfv2" "CDFV2",
    /// Compiled Java class.
    CJAVA = "cjava" "CJAVA",
    /// Android byte code.
    DALVIK = "dalvik" "DALVIK",
    /// Word document, old format.
    DOC = "doc" "DOC",
    /// Word document.
    DOCX = "docx" "DOCX",
    /// ELF program, 32 bit.
    ELF32 = "elf32" "ELF32",
    /// ELF program, 64 bit.
    ELF64 = "elf64" "ELF64",
    /// Mail.
    EMAIL = "email" "EMAIL",
    /// HTML.
    HTML = "html" "HTML",
    /// Hangul word processor document.
    HWP = "hwp" "HWP",
    /// Java archive.
    JAVA_ARC = "java.arc" "JAVA.ARC",
    /// Windows shortcut.
    LNK = "lnk" "LNK",
    /// Mach-O program.
    MACHO = "macho" "MACHO",
    /// Network capture.
    PCAP = "pcap" "PCAP",
    /// PDF.
    PDF = "pdf" "PDF",
    /// Windows program, 32 bit.
    PE32 = "pe32" "PE32",
    /// Windows program, 64 bit.
    PE64 = "pe64" "PE64",
    /// Perl script.
    PERL = "perl" "PERL",
    /// PowerPoint presentation, old format.
    PPT = "ppt" "PPT",
    /// PowerPoint presentation.
    PPTX = "pptx" "PPTX",
    /// Python script.
    PYTHON = "python" "PYTHON",
    /// Python byte code.
    PYTHONC = "pythonc" "PYTHONC",
    /// Rich text.
    RTF = "rtf" "RTF",
    /// Flash film.
    SWF = "swf" "SWF",
    /// Text.
    TEXT = "text" "TEXT",
    /// Excel workbook, old format.
    XLS = "xls" "XLS",
    /// Excel workbook.
    XLSX = "xlsx" "XLSX",
}

impl FileType {
    /// The word as it was written.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Word::Known(code) => WORDS[usize::from(code / 2)][usize::from(code % 2)],
            Word::Other(text) => text,
        }
    }

    /// Returns whether the service is known to use the word. Any other word is passed on, and
    /// may find nothing.
    pub fn is_known(&self) -> bool {
        WORDS
            .iter()
            .any(|[lower, _]| lower.eq_ignore_ascii_case(self.as_str()))
    }
}

impl FromStr for FileType {
    type Err = ParseError;

    /// Reads any word. It fails for an empty word and for white space around it.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::new("a file type", "it is empty"));
        }
        if text.trim() != text {
            return Err(ParseError::new(
                "a file type",
                "there is white space around it",
            ));
        }
        Ok(Self(word(text).unwrap_or_else(|| Word::Other(text.into()))))
    }
}

impl PartialEq for FileType {
    fn eq(&self, other: &Self) -> bool {
        self.as_str().eq_ignore_ascii_case(other.as_str())
    }
}

impl Eq for FileType {}

impl Hash for FileType {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().to_ascii_lowercase().hash(state);
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileType({self})")
    }
}

text_item!(FileType, |_, _| true, as_str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_word_is_known_in_both_cases() {
        for [lower, upper] in WORDS {
            assert_eq!(&lower.to_uppercase(), upper);
            let (a, b): (FileType, FileType) = (lower.parse().unwrap(), upper.parse().unwrap());
            assert_eq!(a, b);
            assert!(a.is_known());
            assert_eq!((a.as_str(), b.as_str()), (*lower, *upper));
        }
        assert_eq!(FileType::JAVA_ARC.as_str(), "java.arc");
    }

    #[test]
    fn any_other_word_is_passed_on() {
        let other: FileType = "Mixed.Case".parse().unwrap();
        assert_eq!(other.as_str(), "Mixed.Case");
        assert_eq!(other, "mixed.case".parse().unwrap());
        assert_ne!(other, FileType::PDF);
        assert!(!other.is_known() && "Pe32".parse::<FileType>().unwrap().is_known());
        assert!("".parse::<FileType>().is_err());
        assert!(" pe32".parse::<FileType>().is_err());
        assert_eq!(size_of::<FileType>(), 16);
    }

    #[test]
    fn equal_types_have_one_hash_and_one_text() {
        let types: std::collections::HashSet<FileType> =
            ["pe32", "PE32", "Odd.Kind", "odd.kind", "pdf"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        assert_eq!(types.len(), 3);
        assert_eq!(format!("{:?}", FileType::PE32), "FileType(pe32)");
        let hash = |text: &str| {
            let mut hasher = std::hash::DefaultHasher::new();
            text.parse::<FileType>().unwrap().hash(&mut hasher);
            hasher.finish()
        };
        assert_ne!(hash("pe32"), hash("pdf"));
    }
}
