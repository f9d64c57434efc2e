"""The guestbook service: messages in MySQL, over HTTP in the shape of Spring Data REST."""
