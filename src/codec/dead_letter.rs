//! Why a message was dead-lettered, by name.
