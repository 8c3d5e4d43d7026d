//! Words that a type has on the wire, as values of arguments.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::{DeserializeOwned, IntoDeserializer, value};

/// Reads one of the words of `T`, offers them for completion, and names them all when it is none of them.
pub(super) fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: impl IntoIterator<Item = &'static str>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words)
        .try_map(|word| T::deserialize(IntoDeserializer::<value::Error>::into_deserializer(word)))
}
