// An app's script of each kind: when does it run, and is `embed` there by then?
tell(new URL(document.currentScript?.src ?? "?module", location.href).search.slice(1));
