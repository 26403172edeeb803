package bios.protocol;

/// A value from outside that breaks a rule: names the field and the remedy. Thrown by the constructors of
/// protocol types and turned into a 4xx answer at the gateway; it never crosses an actor.
public final class Invalid extends IllegalArgumentException {
    private static final long serialVersionUID = 1;
    private final String field;

    /// @param field the field as the user wrote it, e.g. `adam_params.beta1`
    /// @param message what is wrong and what to do instead
    public Invalid(String field, String message) {
        super(field + ": " + message);
        this.field = field;
    }

    /// The field at fault, in the wire's spelling.
    public String field() {
        return field;
    }
}
