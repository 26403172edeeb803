package bios.protocol.model;

/// A base model that a worker was given and does not serve.
///
/// @param name the name it would be served under; not always a valid [ModelName]
/// @param folder where the worker looks for it
/// @param reason why it is not served, and the remedy
public record UnservedModel(String name, String folder, String reason) {}
