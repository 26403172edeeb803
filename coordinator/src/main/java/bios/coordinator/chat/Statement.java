package bios.coordinator.chat;

import java.util.List;
import java.util.Optional;

/// A statement of a template.
sealed interface Statement {
    record Text(String text) implements Statement {}

    record Output(Expression value) implements Statement {}

    record If(List<Branch> branches, List<Statement> otherwise) implements Statement {}

    /// A condition of an [If], and the body that is executed if it is the first that holds.
    record Branch(Expression condition, List<Statement> body) {}

    /// @param targets names that an item is assigned to; several: the parts of the item
    /// @param filter which items are taken
    /// @param otherwise is executed if there are no items
    record For(List<String> targets, Expression items, Optional<Expression> filter, List<Statement> body,
            List<Statement> otherwise) implements Statement {}

    /// @param targets names; several: the parts of the value
    record Assign(List<String> targets, Expression value) implements Statement {}

    /// Sets an attribute of a namespace.
    record AssignAttribute(String namespace, String attribute, Expression value) implements Statement {}

    /// Assigns the text of a body.
    record AssignText(String target, List<Statement> body) implements Statement {}

    record Macro(String name, List<Parameter> parameters, List<Statement> body) implements Statement {}

    /// A parameter of a [Macro].
    record Parameter(String name, Optional<Expression> value) {}

    /// Assignments that hold in a body only.
    record With(List<Assign> assignments, List<Statement> body) implements Statement {}

    /// The body of `{% generation %}`, which marks the assistant's text for training.
    record Generation(List<Statement> body) implements Statement {}

    record Break() implements Statement {}

    record Continue() implements Statement {}
}
