use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::ParseError;
use super::lenient::text_item;

/// The service's name for a file type, such as `pe32` or `pdf`.
///
/// CrowdStrike does not document a complete list of names, and their case varies: replies contain
/// `PE32`, and search filters contain `pe32`. This type therefore accepts unknown names, keeps the
/// case of each name, and ignores ASCII case in comparisons. The known file types are constants.
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

/// A known name in lowercase or uppercase is stored as a number, which needs no allocation.
#[derive(Clone)]
enum Word {
    /// Twice the index of the name, plus one if it is in uppercase.
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
    /// A Composite Document File.
    CDF = "cdf" "CDF",
    /// A version 2 Composite Document File, such as an old Office file.
    CDFV2 = "cdfv2" "CDFV2",
    /// A compiled Java class.
    CJAVA = "cjava" "CJAVA",
    /// Android bytecode.
    DALVIK = "dalvik" "DALVIK",
    /// A Word document in the old format.
    DOC = "doc" "DOC",
    /// A Word document.
    DOCX = "docx" "DOCX",
    /// A 32-bit ELF file.
    ELF32 = "elf32" "ELF32",
    /// A 64-bit ELF file.
    ELF64 = "elf64" "ELF64",
    /// An email message.
    EMAIL = "email" "EMAIL",
    /// An HTML document.
    HTML = "html" "HTML",
    /// A Hangul Word Processor document.
    HWP = "hwp" "HWP",
    /// A Java archive.
    JAVA_ARC = "java.arc" "JAVA.ARC",
    /// A Windows shortcut.
    LNK = "lnk" "LNK",
    /// A Mach-O file.
    MACHO = "macho" "MACHO",
    /// A network capture.
    PCAP = "pcap" "PCAP",
    /// A PDF document.
    PDF = "pdf" "PDF",
    /// A 32-bit Windows PE file.
    PE32 = "pe32" "PE32",
    /// A 64-bit Windows PE file.
    PE64 = "pe64" "PE64",
    /// A Perl script.
    PERL = "perl" "PERL",
    /// A PowerPoint presentation in the old format.
    PPT = "ppt" "PPT",
    /// A PowerPoint presentation.
    PPTX = "pptx" "PPTX",
    /// A Python script.
    PYTHON = "python" "PYTHON",
    /// Python bytecode.
    PYTHONC = "pythonc" "PYTHONC",
    /// A Rich Text Format document.
    RTF = "rtf" "RTF",
    /// A Flash movie.
    SWF = "swf" "SWF",
    /// A text file.
    TEXT = "text" "TEXT",
    /// An Excel workbook in the old format.
    XLS = "xls" "XLS",
    /// An Excel workbook.
    XLSX = "xlsx" "XLSX",
}

impl FileType {
    /// Returns the name, in its original case.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Word::Known(code) => WORDS[usize::from(code / 2)][usize::from(code % 2)],
            Word::Other(text) => text,
        }
    }

    /// Returns whether the service is known to use this name. The comparison ignores ASCII case.
    /// Unknown names can be used in a search filter, but the search may find nothing.
    pub fn is_known(&self) -> bool {
        WORDS
            .iter()
            .any(|[lower, _]| lower.eq_ignore_ascii_case(self.as_str()))
    }
}

impl FromStr for FileType {
    type Err = ParseError;

    /// Parses a name. Fails if it is empty or has leading or trailing whitespace.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::new("a file type", "it is empty"));
        }
        if text.trim() != text {
            return Err(ParseError::new(
                "a file type",
                "it has leading or trailing whitespace",
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
