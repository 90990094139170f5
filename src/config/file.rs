//! The configuration file as sections and fields that know their lines.
//!
//! Derived serde structs with `deny_unknown_fields` were rejected: they stop at
//! the first fault, and an operator then repairs a file one run at a time. Here
//! a section hands out its fields by name, and what it is never asked for is
//! unknown; so the list of known keys cannot differ from the code that reads
//! them. Every fault goes into one list, and reading goes on.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Cause, ConfigError};

/// The text of a configuration file and the faults found in it so far.
pub(super) struct File<'a> {
    path: &'a Path,
    text: &'a str,
    errors: RefCell<Vec<ConfigError>>,
}

/// Where a key stands, for messages.
#[derive(Debug, Clone)]
pub(super) struct Place {
    key: String,
    line: Option<usize>,
}

/// A value of the type that was asked for, and its place.
pub(super) struct Field<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<T> Field<T> {
    /// Splits a field for code that wants the value and the place apart.
    pub(super) fn split(self) -> (T, Place) {
        (self.value, self.place)
    }
}

/// A table of the file, or an absent one, which has no fields.
pub(super) struct Section<'a> {
    file: &'a File<'a>,
    place: Place,
    table: DeTable<'a>,
    /// Every name that was asked for: the known keys of this section.
    asked: Vec<&'static str>,
    /// Those of them that were there, right or wrong.
    given: Vec<&'static str>,
}

impl<'a> File<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            errors: RefCell::new(Vec::new()),
        }
    }

    /// The top of the file. Where the text is no TOML there is nothing to read,
    /// and the faults say so.
    pub(super) fn root(&'a self) -> Option<Section<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let place = Place {
                key: String::new(),
                line: error.span().map(|span| self.line(&span)),
            };
            let problem = format!("is not TOML: {}", error.message().replace('\n', ", "));
            self.reject(&place, problem, "correct the syntax of this line");
        }
        let place = Place {
            key: String::new(),
            line: None,
        };
        errors.is_empty().then(|| Section {
            file: self,
            place,
            table: table.into_inner(),
            asked: Vec::new(),
            given: Vec::new(),
        })
    }

    /// Notes a fault.
    pub(super) fn reject(
        &self,
        place: &Place,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.note(place, problem.into(), remedy.into(), Cause::Wrong);
    }

    /// Notes that a file cannot be read. What is refused to this process alone may be
    /// used all the same by who only wants to know where it is ([`super::Seen`]).
    pub(super) fn unreadable(
        &self,
        place: &Place,
        path: &Path,
        error: &io::Error,
        remedy: impl Into<String>,
    ) -> Cause {
        let cause = Cause::of(error);
        let problem = format!("{} cannot be read: {error}", path.display());
        self.note(place, problem, remedy.into(), cause);
        cause
    }

    /// Notes a fault with what lies behind it.
    pub(super) fn note(&self, place: &Place, problem: String, remedy: String, cause: Cause) {
        self.errors.borrow_mut().push(ConfigError {
            file: self.path.to_owned(),
            line: place.line,
            key: (!place.key.is_empty()).then(|| place.key.clone()),
            problem,
            remedy,
            cause,
        });
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        1 + memchr::memchr_iter(b'\n', before).count()
    }
}

impl<'a> Section<'a> {
    /// The file this section is part of.
    pub(super) fn file(&self) -> &'a File<'a> {
        self.file
    }

    /// The name of this section.
    pub(super) fn name(&self) -> &str {
        &self.place.key
    }

    /// The place of a key that may be there and has not been taken.
    pub(super) fn place(&self, name: &str) -> Place {
        let key = self.table.keys().find(|key| key.get_ref() == name);
        match key {
            None => self.absent(name),
            Some(key) => Place {
                key: join(&self.place.key, name),
                line: Some(self.file.line(&key.span())),
            },
        }
    }

    /// The place of a key that is absent: the line of its section.
    pub(super) fn absent(&self, name: &str) -> Place {
        Place {
            key: join(&self.place.key, name),
            line: self.place.line,
        }
    }

    /// The value of a key, if it is there and of the right type.
    pub(super) fn take<T: Value>(&mut self, name: &'static str) -> Option<Field<T>> {
        let (place, value) = self.remove(name)?;
        let found = value.type_str();
        if let Some(value) = T::from_value(&value) {
            return Some(Field { value, place });
        }
        let problem = format!("is {} {found}, not {}", article(found), T::WANTED);
        self.file.reject(&place, problem, T::REMEDY);
        None
    }

    /// The section below this one, absent or not.
    pub(super) fn table(&mut self, name: &'static str) -> Section<'a> {
        let (place, table) = match self.remove(name) {
            Some((place, DeValue::Table(table))) => (place, table),
            Some((place, _)) => {
                let remedy = format!("write it as a section, [{}]", place.key);
                self.file.reject(&place, "is not a section", remedy);
                (place, DeTable::default())
            }
            None => (self.absent(name), DeTable::default()),
        };
        Section {
            file: self.file,
            place,
            table,
            asked: Vec::new(),
            given: Vec::new(),
        }
    }

    /// The sections of an array of tables, `[[name]]`.
    pub(super) fn tables(&mut self, name: &'static str) -> Vec<Section<'a>> {
        let Some((place, value)) = self.remove(name) else {
            return Vec::new();
        };
        let remedy = format!("write each as a section of its own, [[{}]]", place.key);
        let DeValue::Array(array) = value else {
            self.file
                .reject(&place, "is not a list of sections", remedy);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, entry) in array.into_iter().enumerate() {
            let place = Place {
                key: format!("{}[{}]", place.key, index + 1),
                line: Some(self.file.line(&entry.span())),
            };
            match entry.into_inner() {
                DeValue::Table(table) => sections.push(Section {
                    file: self.file,
                    place,
                    table,
                    asked: Vec::new(),
                    given: Vec::new(),
                }),
                _ => self.file.reject(&place, "is not a section", remedy.clone()),
            }
        }
        sections
    }

    /// Whether a key is there, not yet taken.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.keys().any(|key| key.get_ref() == name)
    }

    /// Whether a key that was asked for was there, of whatever type.
    pub(super) fn was_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    /// Whatever was not asked for is unknown.
    pub(super) fn finish(self) {
        for (name, _) in &self.table {
            let place = Place {
                key: join(&self.place.key, name.get_ref()),
                line: Some(self.file.line(&name.span())),
            };
            let remedy = match nearest(name.get_ref(), &self.asked) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("known here: {}", self.asked.join(", ")),
            };
            self.file.reject(&place, "is not a known key", remedy);
        }
    }

    fn remove(&mut self, name: &'static str) -> Option<(Place, DeValue<'a>)> {
        self.asked.push(name);
        let key = self.table.keys().find(|key| key.get_ref() == name)?.clone();
        let value: Spanned<DeValue<'a>> = self.table.remove(&key)?;
        self.given.push(name);
        let place = Place {
            key: join(&self.place.key, name),
            line: Some(self.file.line(&key.span())),
        };
        Some((place, value.into_inner()))
    }
}

/// A type that a field can have.
pub(super) trait Value: Sized {
    /// The type in the operator's words.
    const WANTED: &'static str;
    /// How to write one.
    const REMEDY: &'static str;
    fn from_value(value: &DeValue<'_>) -> Option<Self>;
}

impl Value for bool {
    const WANTED: &'static str = "true or false";
    const REMEDY: &'static str = "write true or false, without quotes";
    fn from_value(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl Value for String {
    const WANTED: &'static str = "a string";
    const REMEDY: &'static str = "put the value in double quotes";
    fn from_value(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Value for u64 {
    const WANTED: &'static str = "a whole number from 0";
    const REMEDY: &'static str = "write digits, without quotes and sign";
    fn from_value(value: &DeValue<'_>) -> Option<Self> {
        let integer = value.as_integer()?;
        Self::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

/// A duration as it was written, not yet read.
pub(super) struct PeriodText(pub(super) String);

impl Value for PeriodText {
    const WANTED: &'static str = "a duration with its unit";
    const REMEDY: &'static str =
        "write a whole number with a unit, in double quotes, such as \"500ms\", \"30s\", \"10m\"";
    fn from_value(value: &DeValue<'_>) -> Option<Self> {
        String::from_value(value).map(Self)
    }
}

impl Value for Vec<String> {
    const WANTED: &'static str = "a list of strings";
    const REMEDY: &'static str = "write it as [\"first\", \"second\"]";
    fn from_value(value: &DeValue<'_>) -> Option<Self> {
        let entries = value.as_array()?.iter();
        entries.map(|e| String::from_value(e.get_ref())).collect()
    }
}

/// A name or a number, such as a user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameOrNumber {
    Name(String),
    Number(u64),
}

impl Value for NameOrNumber {
    const WANTED: &'static str = "a string or a whole number from 0";
    const REMEDY: &'static str =
        "put a name in double quotes, write a number without quotes and sign";
    fn from_value(value: &DeValue<'_>) -> Option<Self> {
        if let Some(number) = u64::from_value(value) {
            return Some(Self::Number(number));
        }
        let text = String::from_value(value)?;
        Some(text.parse().map_or(Self::Name(text), Self::Number))
    }
}

/// The known word nearest to a mistyped one, if any is near enough to be meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, best) = known
        .iter()
        .map(|known| (strsim::osa_distance(word, known), *known))
        .min()?;
    (distance <= 1 + best.len() / 4).then_some(best)
}

fn join(section: &str, name: &str) -> String {
    // A key can hold anything in TOML; a message keeps to one line.
    let name = name.escape_debug();
    if section.is_empty() {
        name.to_string()
    } else {
        format!("{section}.{name}")
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keys_finds_its_neighbour_and_a_stranger_none() {
        let known = ["hostname", "shards", "drain"];
        assert_eq!(nearest("hostnmae", &known), Some("hostname"));
        assert_eq!(nearest("shard", &known), Some("shards"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn numbers_are_read_in_every_base_toml_has() {
        let path = Path::new("t.toml");
        let file = File::new(path, "a = 0x10\nb = 1_000\nc = -1\nd = 1e3\n");
        let mut root = file.root().expect("TOML");
        assert_eq!(root.take::<u64>("a").map(|f| f.value), Some(16));
        assert_eq!(root.take::<u64>("b").map(|f| f.value), Some(1000));
        assert!(root.take::<u64>("c").is_none());
        assert!(root.take::<u64>("d").is_none());
        drop(root);
        let errors = file.into_errors();
        let lines: Vec<_> = errors.iter().map(|e| e.line).collect();
        assert_eq!(lines, [Some(3), Some(4)]);
        assert!(errors.iter().all(|e| e.problem.contains("whole number")));
    }
}
