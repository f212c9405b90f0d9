/**
 * Types of /embed.js and /embed.mjs. Keep a copy in your project:
 *
 *   curl -o src/pat-embed.d.ts https://embed.example/embed.d.ts
 *
 * `import type { Frame } from "./pat-embed"` then brings the types, the global `PatEmbed` and `<pat-embed>` along.
 * For React 19 in TypeScript, add once (before 19, the namespace `JSX` is global):
 *
 *   declare module "react" {
 *     namespace JSX {
 *       interface IntrinsicElements {
 *         "pat-embed": React.HTMLAttributes<HTMLPatEmbedElement> & PatEmbedAttributes & { ref?: React.Ref<HTMLPatEmbedElement> };
 *       }
 *     }
 *   }
 */

/** Why a token is asked for. */
export type TokenReason = "initial" | "expiring" | "expired" | "visible" | "reload";

/** `auto` follows the viewer's system. */
export type Theme = "light" | "dark" | "auto";

/** What the mint answered to your back end, handed on as it came. */
export interface Minted {
  /** Where the frame is, and its token. */
  redirectUrl: string;
  personalAccessToken?: string;
  tokenId?: string;
  /** How long the token opens frames, in seconds. */
  expiresIn?: number;
  /** How long a session lasts, in seconds. */
  sessionExpiresIn?: number;
  /** There where it was asked for: then each frame mints for itself. */
  singleUse?: boolean;
}

export interface TokenRequest {
  /** The slug, as in the options. */
  app?: string;
  workspace?: string;
  reason: TokenReason;
  /** Aborted when nobody waits for the token any more. */
  signal: AbortSignal;
}

/** One of the two says where tokens come from. */
export type TokenSource =
  /** Your back end, which mints: POSTed with your site's own credentials and `{"app": …, "reason": …}`. */
  | { tokenUrl: string; fetchToken?: undefined }
  /**
   * The same in code. Frames of one app with the same function share a token. What it throws is tried again, unless it
   * has `retryable: false`, as for somebody who is signed out; `retryAfter` says in how many seconds.
   */
  | { fetchToken: (request: TokenRequest) => Minted | Promise<Minted>; tokenUrl?: undefined };

export type MountOptions = TokenSource & FrameOptions;

export interface FrameOptions {
  /** The app's slug, for your back end; */
  app?: string;
  /** or the workspace's, for a token of all its apps. */
  workspace?: string;
  /** How long to wait for a token, in milliseconds. Without it 30,000. */
  tokenTimeout?: number;
  /** The frame is as high as what it shows. */
  autoHeight?: boolean;
  theme?: Theme;
  /** A BCP 47 tag, such as `es` or `es-MX`. Without it, that of your page (`<html lang>`), else the browser's. */
  locale?: string;
  /** What a screen reader calls the frame. */
  title?: string;
  /** `lazy`: nothing is asked for until the frame is near what the viewer sees. */
  loading?: "eager" | "lazy";
  /** The iframe's own attributes, in place of the usual ones. */
  sandbox?: string;
  allow?: string;
  referrerPolicy?: ReferrerPolicy;
  /** The same as `on("error", …)`, from the very beginning. */
  onError?: (error: PatEmbedError) => void;
  /** Every event, from the first on: those before `mount` resolves as well. */
  onEvent?: (name: string, data: any) => void;
}

/** What went wrong: the service's own codes, those of the frame, and those of this script. */
export type PatEmbedErrorCode =
  // The token
  | "token_missing"
  | "token_invalid"
  | "token_expired"
  | "token_superseded"
  | "token_revoked"
  | "token_used"
  // The session
  | "session_invalid"
  | "session_expired"
  | "session_revoked"
  | "access_revoked"
  | "too_many_sessions"
  // Where the frame is
  | "not_framed"
  | "origin_not_allowed"
  // A request
  | "invalid_payload"
  | "not_found"
  | "method_not_allowed"
  | "payload_too_large"
  | "unsupported_media_type"
  | "rate_limited"
  | "internal_error"
  | "unavailable"
  // No answer of the service: your token endpoint failed, the frame or a token did not come in time, the network,
  // an app's answer led elsewhere, an answer that says no more than its status
  | "fetch_token_failed"
  | "timeout"
  | "unreachable"
  | "redirect_refused"
  | "unknown";

export interface PatEmbedError extends Error {
  readonly code: PatEmbedErrorCode;
  /** Whether trying again by itself can help; false where a person has to do something first. */
  readonly retryable: boolean;
  /** To quote to whoever runs the service. */
  readonly requestId: string | null;
  /** Of HTTP; 0 where there was no answer. */
  readonly status: number;
  /** In seconds. */
  readonly retryAfter: number | null;
}

export interface Named {
  id: string;
  slug: string;
  name: string;
}

/** What a frame tells by itself, by name. */
export interface FrameEvents {
  /** The frame speaks; its app is still to come. */
  ready: Record<string, never>;
  /** The app can be used. Without an app it is the launcher of the workspace. */
  loaded: { app: Named | null; workspace: Named; title: string };
  /** In CSS pixels. */
  resize: { height: number };
  /** Another page of the app is shown. */
  navigate: { page: string; title: string };
  /** In seconds. */
  "session:expiring": { expiresIn: number };
  "session:renewed": { expiresIn: number };
  "session:expired": Record<string, never>;
  "session:revoked": { code: PatEmbedErrorCode };
  error: PatEmbedError;
}

export interface Frame {
  /** What was mounted into. */
  readonly element: Element;
  /** Null until the first token is there. */
  readonly iframe: HTMLIFrameElement | null;
  /** Listen, to the app's own events too; the answer takes the listener away again. */
  on<Name extends keyof FrameEvents>(name: Name, listener: (event: FrameEvents[Name]) => void): () => void;
  on(name: string, listener: (data: any) => void): () => void;
  off<Name extends keyof FrameEvents>(name: Name, listener: (event: FrameEvents[Name]) => void): void;
  off(name: string, listener: (data: any) => void): void;
  /** Tell the app something: `data` is copied, as `postMessage` copies. Names of `FrameEvents` are taken. */
  send(name: string, data?: unknown): void;
  setTheme(theme: Theme): void;
  setLocale(locale: string): void;
  /** Go on with a new token, at once. Rejects with a `PatEmbedError`. */
  refresh(): Promise<Frame>;
  /** Take the frame away. A `mount` that still waits rejects with an `AbortError`. */
  unmount(): void;
}

export interface PatEmbedApi {
  readonly version: string;
  readonly PatEmbedError: new (code: PatEmbedErrorCode, message: string, rest?: Partial<PatEmbedError>) => PatEmbedError;
  /** Show an app in the element, or in the first that the selector finds. Rejects with a `PatEmbedError`. */
  mount(target: string | Element, options: MountOptions): Promise<Frame>;
}

/** The attributes of `<pat-embed>`, as HTML and JSX write them. */
export interface PatEmbedAttributes {
  app?: string;
  workspace?: string;
  "token-url"?: string;
  "token-timeout"?: string | number;
  "auto-height"?: boolean | "";
  theme?: Theme;
  locale?: string;
  title?: string;
  loading?: "eager" | "lazy";
  sandbox?: string;
  allow?: string;
  referrerpolicy?: ReferrerPolicy;
}

/** `<pat-embed>`: what its frame tells, it dispatches as a `CustomEvent` of the same name. */
export interface HTMLPatEmbedElement extends HTMLElement {
  /** The frame, once it is mounted. */
  readonly frame: Frame | null;
  /** In place of the attribute `token-url`. */
  fetchToken: ((request: TokenRequest) => Minted | Promise<Minted>) | undefined;
  addEventListener<Name extends keyof FrameEvents>(
    type: Name,
    listener: (this: HTMLPatEmbedElement, event: CustomEvent<FrameEvents[Name]>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export const PatEmbed: PatEmbedApi;
export default PatEmbed;

declare global {
  var PatEmbed: PatEmbedApi;
  interface HTMLElementTagNameMap {
    "pat-embed": HTMLPatEmbedElement;
  }
}
