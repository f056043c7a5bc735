//! How values of the domain stand in columns: enums as words, structures as JSON text, addresses as text.
//!
//! Not here: the plain types every column has (`sql`).

use serde::{
    Serialize,
    de::{DeserializeOwned, IntoDeserializer, value},
};

use super::{Error, sql::Row};
use crate::mail::{Address, MessageId, Party};

/// The word an enum without fields is stored by: the one the contract shows.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    json_text(value).trim_matches('"').to_owned()
}

/// JSON as text.
pub(crate) fn json_text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("what we store has text keys and no serialiser that fails")
}

/// `Missing` when a statement that names one row changed none.
pub(crate) fn changed(rows: u64) -> Result<(), Error> {
    if rows == 0 { Err(Error::Missing) } else { Ok(()) }
}

/// A stored word, read back.
pub(crate) fn from_word<T: DeserializeOwned>(word: &str) -> Result<T, Error> {
    let deserializer: value::StrDeserializer<'_, value::Error> = word.into_deserializer();
    T::deserialize(deserializer).map_err(|_| Error::Corrupt("an unknown word".into()))
}

impl Row {
    pub(crate) fn word<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        from_word(&self.get::<String>(name)?).map_err(|_| Error::Corrupt(format!("{name}: an unknown word")))
    }

    pub(crate) fn opt_word<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        self.get::<Option<String>>(name)?.map(|_| self.word(name)).transpose()
    }

    pub(crate) fn address(&self, name: &str) -> Result<Address, Error> {
        let text: String = self.get(name)?;
        Address::parse(&text).map_err(|_| Error::Corrupt(format!("{name}: not an address")))
    }

    pub(crate) fn opt_address(&self, name: &str) -> Result<Option<Address>, Error> {
        self.get::<Option<String>>(name)?.map(|_| self.address(name)).transpose()
    }

    pub(crate) fn opt_message_id(&self, name: &str) -> Result<Option<MessageId>, Error> {
        let Some(text) = self.get::<Option<String>>(name)? else { return Ok(None) };
        MessageId::parse(&text).map(Some).ok_or_else(|| Error::Corrupt(format!("{name}: not a message id")))
    }

    pub(crate) fn opt_party(&self, email: &str, name: &str) -> Result<Option<Party>, Error> {
        let Some(address) = self.opt_address(email)? else { return Ok(None) };
        Ok(Some(Party { address, name: self.get(name)? }))
    }
}

/// A count or size as it is stored; what no disk can hold is stored as the largest number.
pub(crate) fn stored_count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
