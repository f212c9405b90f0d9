// Loaded by each kind of script tag: records when it runs, and whether `embed` exists.
record(new URL(document.currentScript?.src ?? "?module", location.href).search.slice(1));
