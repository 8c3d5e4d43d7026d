//! Bytes as they are written down in JSON.

use bytes::Bytes;
use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
use signalbox_schemas::Base64Url;

pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    Base64Url(bytes.to_vec()).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    Base64Url::deserialize(deserializer).map(|bytes| Bytes::from(bytes.0))
}
