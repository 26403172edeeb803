package bios.persistence.index;

import java.util.List;

/// A part of a list.
///
/// @param items the rows asked for
/// @param total rows of the whole list
public record Page<T>(List<T> items, long total) {
    public Page {
        items = List.copyOf(items);
    }
}
