//! A flag's value with options: `VALUE,key=value,word`.

use std::str::FromStr;

use super::ValueError;

/// The parts of a flag's value, taken one by one; what is left at the end is an error.
///
/// Two commas are one that belongs to a value, as in QEMU's options: paths may hold them.
#[derive(Debug)]
pub(super) struct Options<'a> {
    flag: &'a str,
    parts: Vec<String>,
}

impl<'a> Options<'a> {
    /// Splits `text`, the value of `flag`.
    pub(super) fn split(flag: &'a str, text: &str) -> Self {
        let mut parts = vec![String::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match (character, parts.last_mut()) {
                (',', Some(part)) if characters.next_if_eq(&',').is_some() => part.push(','),
                (',', _) => parts.push(String::new()),
                (other, Some(part)) => part.push(other),
                (_, None) => {}
            }
        }
        Self { flag, parts }
    }

    /// The first part, which has no key; to be taken before all others.
    pub(super) fn first(&mut self) -> Result<String, ValueError> {
        match self.parts.first() {
            Some(first) if !first.is_empty() => Ok(self.parts.remove(0)),
            _ => Err(self.error("it begins with a value")),
        }
    }

    /// Whether `word` is there.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let place = self.parts.iter().position(|part| part == word);
        place.map(|place| self.parts.remove(place)).is_some()
    }

    /// The value of `key`, if it is there.
    pub(super) fn value(&mut self, key: &str) -> Option<String> {
        let has_key = |part: &String| part.strip_prefix(key).is_some_and(|rest| rest.starts_with('='));
        let place = self.parts.iter().position(has_key)?;
        self.parts.remove(place).split_once('=').map(|(_, value)| value.to_owned())
    }

    /// The value of `key`, if it is there, as a `T`.
    pub(super) fn parsed<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, ValueError>
    where
        T::Err: std::fmt::Display,
    {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        value.parse().map(Some).map_err(|error| self.error(format!("{key}={value}: {error}")))
    }

    /// The value of `key`, which must be there.
    pub(super) fn needed(&mut self, key: &str) -> Result<String, ValueError> {
        self.value(key).ok_or_else(|| self.error(format!("{key}= is missing")))
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Result<(), ValueError> {
        match self.parts.first() {
            None => Ok(()),
            Some(part) => Err(self.error(format!("'{part}' is not an option of it, or is there twice"))),
        }
    }

    /// An error of this flag.
    pub(super) fn error(&self, why: impl Into<String>) -> ValueError {
        ValueError::Option { flag: self.flag.to_owned(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_by_name() {
        let mut options = Options::split("--x", "a,,b,readonly,queues=4,id=k=v");
        assert_eq!(options.first().unwrap(), "a,b");
        assert!(options.word("readonly") && !options.word("readonly"));
        assert_eq!(options.parsed::<u16>("queues").unwrap(), Some(4));
        assert_eq!(options.value("id").as_deref(), Some("k=v"));
        assert_eq!(options.end(), Ok(()));
    }

    #[test]
    fn what_is_not_an_option_is_named() {
        let mut options = Options::split("--x", "a,b,b");
        options.first().unwrap();
        assert!(options.word("b"));
        assert!(options.end().unwrap_err().to_string().contains("'b'"), "the second one");
        assert!(Options::split("--x", ",a").first().is_err());
        assert!(Options::split("--x", "n=300").parsed::<u8>("n").unwrap_err().to_string().contains("n=300"));
        assert!(Options::split("--x", "").needed("tap").unwrap_err().to_string().contains("tap= is missing"));
    }
}
