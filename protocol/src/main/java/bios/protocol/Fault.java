package bios.protocol;

/// Why an operation failed, as its author may read it.
///
/// @param kind whose mistake it was
/// @param code a stable snake_case word for programs, listed in docs/reference/errors.md
/// @param message what happened and what to do
public record Fault(Kind kind, String code, String message) {
    /// Who has to act: the user, or the people who run the service.
    public enum Kind { USER, SERVER }

    /// A fault that the user can mend.
    public static Fault user(String code, String message) {
        return new Fault(Kind.USER, code, message);
    }

    /// A fault of the service or its world.
    public static Fault server(String code, String message) {
        return new Fault(Kind.SERVER, code, message);
    }
}
