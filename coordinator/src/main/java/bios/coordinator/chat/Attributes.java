package bios.coordinator.chat;

import java.util.Map;

/// A value with attributes: the state of a loop, or a namespace.
interface Attributes {
    /// The attribute, or [Undefined].
    Object attribute(String name);

    /// A namespace: its attributes can be set, also where its name could not.
    ///
    /// @param values is changed
    record Namespace(Map<String, Object> values) implements Attributes {
        @Override public Object attribute(String name) {
            return values.containsKey(name) ? values.get(name) : new Undefined(name);
        }
    }
}
