package bios.coordinator.chat;

/// The value of a name or an attribute that is not there: false, empty, and no text.
///
/// @param name what was looked for, for messages
record Undefined(String name) {}
