// A page in React. <pat-embed> is a plain element: attributes in, events out.
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";

function Portal() {
  const [dark, setDark] = useState(false);
  const [shown, setShown] = useState(true);
  const [told, setTold] = useState("Opening…");
  return (
    <>
      <h1>Portal</h1>
      <p>
        <label><input type="checkbox" checked={shown} onChange={() => setShown(!shown)} /> Show orders</label>{" "}
        <label><input type="checkbox" checked={dark} onChange={() => setDark(!dark)} /> Dark</label>
      </p>
      <p role="status">{told}</p>
      {shown && (
        <pat-embed
          app="orders"
          token-url="/embed-token"
          auto-height=""
          theme={dark ? "dark" : "light"}
          onloaded={({ detail }) => setTold(`You see ${detail.title}.`)}
          onerror={({ detail }) => setTold(`${detail.message} (${detail.requestId ?? detail.code})`)}
        />
      )}
    </>
  );
}

createRoot(document.getElementById("root")).render(<StrictMode><Portal /></StrictMode>);
