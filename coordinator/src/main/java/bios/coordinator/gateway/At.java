package bios.coordinator.gateway;

import bios.protocol.Invalid;

/// A place in a JSON body, written as users see it: `forward_backward_input.data[3].loss_fn_inputs.weights`.
///
/// @param above null for the body itself
/// @param name of a field, or null for item `index`
record At(At above, String name, int index) {
    /// The body as a whole.
    static final At BODY = new At(null, "", 0);

    At field(String field) {
        return new At(this, field, 0);
    }

    At item(int i) {
        return new At(this, null, i);
    }

    /// A value at this place is wrong.
    Invalid invalid(String message) {
        return new Invalid(toString(), message);
    }

    @Override public String toString() {
        if (above == null) return "body";
        var text = new StringBuilder();
        write(text);
        return text.toString();
    }

    private void write(StringBuilder text) {
        if (above != null && above.above != null) above.write(text);
        if (name == null) text.append('[').append(index).append(']');
        else text.append(text.isEmpty() ? "" : ".").append(name.length() > 100 ? name.substring(0, 100)
                + "..." : name);
    }
}
