//! Identities. A task's is about 2·10¹⁷, past what JavaScript can count, and so a string wherever it leaves Rust and SQL.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! id {
    ($name:ident, $inner:ty, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(QueueId, i32, "A queue within its database.");
id!(TaskId, i64, "A task within its database; the time it was enqueued is inside.");
id!(InstanceId, i64, "A running worker process, as long as it lives.");
id!(Token, i64, "A lease: random, so that it never comes back after a failover or a restore (R14).");

impl Token {
    /// A new one, of the system's randomness: what is seeded by a clock may come twice where machines start alike.
    #[must_use]
    pub fn random() -> Self {
        // Two keys per thread that the system drew; another one each time.
        Self((RandomState::new().hash_one(()) >> 1).cast_signed().max(1))
    }
}
