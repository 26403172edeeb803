package bios.coordinator.chat;

import java.time.ZonedDateTime;
import java.util.List;
import java.util.Map;

/// The chat template of a model: how the messages of a chat become one text. Templates are written in Jinja;
/// this is the part of Jinja that they use, with the settings, filters and functions of the transformers
/// library, and the same text to the character. A template reads the variables and writes text: it has no
/// access to files or other templates, changes nothing, and ends, because work and sizes are bounded. What is
/// not known here is refused by its name: nothing is rendered in another way than it was meant.
public final class ChatTemplate {
    private final List<Statement> body;

    private ChatTemplate(List<Statement> body) {
        this.body = body;
    }

    /// Reads a template; throws a [TemplateException] with the line of an error.
    public static ChatTemplate parse(String source) {
        return new ChatTemplate(new TemplateParser(TemplateLexer.parts(source)).template());
    }

    /// Renders the template; throws a [TemplateException] if it refuses.
    ///
    /// @param variables maps, lists, strings, longs, doubles, booleans and nulls by name
    /// @param now the time that `strftime_now` tells
    public String render(Map<String, Object> variables, ZonedDateTime now) {
        return new Renderer(new RenderBudget(), now).render(body, variables);
    }
}
