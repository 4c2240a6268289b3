// @ts-check
// The page at /docs: Swagger UI for the OpenAPI document of this server.

/** @type {any} */
const { SwaggerUIBundle } = window;

SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", deepLinking: true });
