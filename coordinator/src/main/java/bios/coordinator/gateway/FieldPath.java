package bios.coordinator.gateway;

import bios.protocol.Invalid;

/// The path of a value in a JSON body, as error messages show it:
/// `forward_backward_input.data[3].loss_fn_inputs.weights`.
///
/// @param parent null for the body itself
/// @param name name of a field, or null for item `index` of an array
record FieldPath(FieldPath parent, String name, int index) {
    /// The body as a whole.
    static final FieldPath BODY = new FieldPath(null, "", 0);

    FieldPath field(String field) {
        return new FieldPath(this, field, 0);
    }

    FieldPath item(int i) {
        return new FieldPath(this, null, i);
    }

    /// The error for a wrong value at this path.
    Invalid invalid(String message) {
        return new Invalid(toString(), message);
    }

    @Override public String toString() {
        if (parent == null) return "body";
        var text = new StringBuilder();
        write(text);
        return text.toString();
    }

    private void write(StringBuilder text) {
        if (parent != null && parent.parent != null) parent.write(text);
        if (name == null) text.append('[').append(index).append(']');
        else text.append(text.isEmpty() ? "" : ".").append(name.length() > 100 ? name.substring(0, 100)
                + "..." : name);
    }
}
