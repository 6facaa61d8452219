//! Ids. A task id is about 2·10¹⁷, too large for the numbers of JavaScript, so ids are strings outside
//! of Rust and SQL.

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
id!(TaskId, i64, "A task within its database; contains the time at which it was enqueued.");
id!(InstanceId, i64, "A worker process, from join to leave.");
id!(
    Token,
    i64,
    "A fencing token, which names a lease. Random, so that it never repeats after a failover or a restore \
     (R14)."
);

impl Token {
    /// A new token from the randomness of the operating system: a generator seeded by the clock could repeat
    /// tokens on machines that start at the same time.
    #[must_use]
    pub fn random() -> Self {
        // `RandomState` has keys from the operating system, and new ones each time.
        Self((RandomState::new().hash_one(()) >> 1).cast_signed().max(1))
    }
}
