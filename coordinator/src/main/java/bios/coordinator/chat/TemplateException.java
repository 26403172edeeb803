package bios.coordinator.chat;

/// A chat template cannot be read, or it refuses a chat.
public final class TemplateException extends RuntimeException {
    private static final long serialVersionUID = 1;

    TemplateException(String message) {
        super(message, null, false, false);
    }
}
