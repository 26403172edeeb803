package bios.protocol;

/// An invalid value in a request: names the field and the remedy. Constructors of protocol types throw it,
/// and the gateway turns it into a 4xx response; it is never sent to an actor.
public final class Invalid extends IllegalArgumentException {
    private static final long serialVersionUID = 1;
    private final String field;

    /// @param field the field as the user wrote it, e.g. `adam_params.beta1`
    /// @param message what is wrong and what is expected
    public Invalid(String field, String message) {
        super(field + ": " + message);
        this.field = field;
    }

    /// The invalid field, as the client spells it.
    public String field() {
        return field;
    }
}
