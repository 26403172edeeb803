package bios.protocol;

/// The cause of a failed operation, as the client sees it.
///
/// @param kind who has to act
/// @param code a stable snake_case identifier, listed in docs/reference/errors.md
/// @param message what happened and what to do
public record Fault(Kind kind, String code, String message) {
    /// The code of a save whose state is not finite.
    public static final String STATE_NOT_FINITE = "state_not_finite";

    /// Who has to act: the user, or the people who run the service.
    public enum Kind { USER, SERVER }

    /// A fault that the user can correct.
    public static Fault user(String code, String message) {
        return new Fault(Kind.USER, code, message);
    }

    /// A fault of the service or its environment.
    public static Fault server(String code, String message) {
        return new Fault(Kind.SERVER, code, message);
    }
}
